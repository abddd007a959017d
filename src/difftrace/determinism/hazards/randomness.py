"""Operations that draw random numbers."""

from __future__ import annotations

from typing import Final

from difftrace.determinism.hazards import conditions as when
from difftrace.determinism.hazards.attention import ATTENTION_BACKENDS
from difftrace.determinism.hazards.row import Hazard

_DRAWS: Final = (
    "_no_grad_normal",
    "_no_grad_uniform",
    "_sample_dirichlet",
    "_standard_gamma",
    "bernoulli",
    "binomial",
    "cauchy",
    "exponential",
    "geometric",
    "log_normal",
    "multinomial",
    "normal",
    "normal_functional",
    "poisson",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "random",
    "randperm",
    "uniform",
    # Of torch.nn.functional; what they draw with is one of the above.
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d_with_indices",
    "gumbel_softmax",
)

ATTENTION_DROPOUT: Final = Hazard(
    "random",
    (
        *ATTENTION_BACKENDS,
        "scaled_dot_product_attention",
        "_cudnn_attention_forward",
        "_efficient_attention_forward",
        "_flash_attention_forward",
        "_flash_attention_forward_no_dropout_inplace",
        "_scaled_dot_product_attention_math",
        "_triton_scaled_dot_attention",
    ),
    why="drops attention weights at random (dropout_p > 0)",
    fix="call model.eval(), and pass dropout_p=0.0 in evaluation: the function itself does not ask for the mode",
    source="torch.nn.functional.scaled_dot_product_attention",
    condition=when.drops_out,
    shown_as="scaled_dot_product_attention",
)

RANDOM: Final = (
    Hazard(
        "random",
        (
            "_fused_dropout",
            "alpha_dropout",
            "dropout",
            "dropout1d",
            "dropout2d",
            "dropout3d",
            "feature_alpha_dropout",
            "feature_dropout",
            "native_dropout",
            "rrelu",
            "rrelu_with_noise",
            "rrelu_with_noise_functional",
        ),
        why="is active in training mode and draws from torch's global generator",
        fix="call model.eval(); where it is called as a function, pass training=self.training instead of True",
        source="torch.nn.Dropout",
        condition=when.training,
    ),
    ATTENTION_DROPOUT,
    Hazard(
        "random",
        ("_cudnn_rnn", "_lstm_mps", "gru", "lstm", "miopen_rnn", "rnn_relu", "rnn_tanh"),
        why="drops out at random between its layers",
        fix="call model.eval()",
        source="torch.nn.LSTM",
        condition=when.drops_out,
    ),
    Hazard(
        "random",
        _DRAWS,
        why="draws from torch's global generator",
        fix="give it a generator seeded for this run, or seed torch before every run as difftrace.enforce(seed) does",
        source="torch.Tag.nondeterministic_seeded",
        condition=when.from_the_global_generator,
    ),
    Hazard(
        "random",
        _DRAWS,
        why="draws from a generator that the caller gave and seeds",
        fix="seed that generator anew before every run; for equal numbers on all devices let it be one of the CPU",
        source="torch.Generator",
        condition=when.from_the_callers_generator,
    ),
    Hazard(
        "random",
        ("random.random", "numpy.random"),
        why="somewhere in the forward, numbers are drawn from this generator of the process",
        fix="seed it before every run, as difftrace.enforce(seed) does, or draw from an object with a seed of its own",
        source="the generator's state before and after the forward",
    ),
)

# Tagged as seeded, yet they draw nothing, or from a seed that is an argument.
REPEATED_THOUGH_TAGGED: Final = frozenset(
    {"_cudnn_init_dropout_state", "_fill_mem_eff_dropout_mask_", "_nested_tensor_softmax_with_shape"}
)
# What an operation may be from its tags alone, for those that other libraries register.
SEEDED_TAG: Final = Hazard(
    "random",
    (),
    why="is registered as drawing random numbers",
    fix="find out what seeds it; difftrace.enforce(seed) seeds torch's generators",
    source="torch.Tag.nondeterministic_seeded",
)
BITWISE_TAG: Final = Hazard(
    "nondeterministic",
    (),
    why="is registered as not repeating itself bit for bit",
    fix="replace it by a deterministic form",
    source="torch.Tag.nondeterministic_bitwise",
)
