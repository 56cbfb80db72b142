"""Taggers of words as whole sequences, and spans by the taggers that there are."""

from hf_latent.models.spans.configuration_crf import *
from hf_latent.models.spans.configuration_segments import *
from hf_latent.models.spans.modeling_crf import *
from hf_latent.models.spans.modeling_segments import *
