import pytest

pytest.register_assert_rewrite(
    "structures.against_enumeration",
    "structures.invariants",
    "structures.inputs",
    "structures.compiled",
    "structures.with_estimators",
)
