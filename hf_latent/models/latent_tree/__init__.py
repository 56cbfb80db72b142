from hf_latent.models.latent_tree.configuration_latent_tree import *
from hf_latent.models.latent_tree.modeling_classification import *
from hf_latent.models.latent_tree.modeling_dependency_parsing import *
from hf_latent.models.latent_tree.modeling_latent_tree import *
from hf_latent.models.latent_tree.modeling_pair_classification import *
from hf_latent.models.latent_tree.modeling_sequence_classification import *
from hf_latent.models.latent_tree.modeling_token_classification import *
