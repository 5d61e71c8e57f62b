"""What a job may be told: every key that nobody reads and every value that a rank would trip over is one line."""

import inspect

import pytest
from hydra import compose, initialize_config_module
from hydra.errors import HydraException

import rushlight_models
import rushlight_optim
from rushlight_train import build, checks, schema

TEXT = "model=gpt data=stdlib_text "


@pytest.fixture(scope="module", autouse=True)
def configs():
    schema.register()
    with initialize_config_module("rushlight_train.configs", version_base="1.3"):
        yield


def told(words):
    """What the user is told, nothing where the job may start."""
    try:
        cfg = compose("config", overrides=words.split())
        checks.keys(cfg)
        checks.values(cfg)
    except checks.ConfigError as error:
        return str(error)
    except (HydraException, ValueError) as error:
        return checks.explained(error, words.split())
    return ""


@pytest.mark.parametrize(
    "words",
    [
        "", "model=mlp", "model=mlp model.hidden=[]", "model=resnet18", "model=gpt data=stdlib_text",
        "model=lstm data=stdlib_text", "optim=sgd", "optim=rmsprop", "optim=adagrad", "optim=adamw",
        "scheduler=constant", "experiment=quick", "seed=-1", "clip_norm=1", "launch.timeout_s=9",
        "+optim.amsgrad=true", "+optim.foreach=null", "optim.name=NAdam", "++optim.lr=1", "optim={lr:3}",
        "optim=sgd +optim.dampening=0.5", TEXT + "model=lstm +model.tie_weights=true model.hidden_size=128",
    ],
)  # fmt: skip
def test_what_makes_sense_passes(words):
    assert told(words) == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("+data.batchsize=5", "there is no key data.batchsize; did you mean data.batch_size?"),
        ("++data.batchsize=5", "there is no key data.batchsize; did you mean data.batch_size?"),
        ("+launch.rank=1", "there is no key launch.rank; did you mean launch.ranks?"),
        ("+foo=1", "there is no key foo; `rushlight train --help` lists"),
        ("+checkpoint.foo=1", "there is no key checkpoint.foo; checkpoint has every, keep"),
        ("checkpoint={foo:3}", "there is no key checkpoint.foo; checkpoint has every, keep"),
        ("+scheduler.x=1", "there is no key scheduler.x; scheduler has final, name, warmup"),
        ("+data.x.y=1", "there is no key data.x; "),
        ("+optim.lrr=5", "there is no key optim.lrr of Adam; did you mean optim.lr?"),
        ("optim.lrr=5", "there is no key optim.lrr of Adam; did you mean optim.lr?"),
        ("+optim.params=5", "there is no key optim.params of Adam; "),
        ("+model.nosuch=1", "there is no key model.nosuch of CNN; model has channels, dropout, hidden, name"),
        ("+model.image_size=9", "there is no key model.image_size of CNN; "),
        (TEXT + "+model.nheads=2", "there is no key model.nheads of GPT; did you mean model.n_head?"),
        (
            "optim.amsgrad=true",
            "optim.amsgrad is an argument of Adam that the configuration does not hold yet; add it: +",
        ),
        ("lr=1", "there is no key lr; did you mean optim.lr?"),
        ("optimm=sgd", "there is no key optimm; did you mean optim?"),
        ("model.name=MLP", "there is no key model.channels of MLP; "),
        ("data.name=stdlib_text", "data.block_size has no value; give it one"),
        ("data.epochs=???", "data.epochs has no value; give it one"),
        ("~data", "data is None; choose one, such as data=digits"),
        ("~model", "model is None; choose one, such as model=mlp"),
        ("model=transformer", "Could not find 'model/transformer'; there are: cnn, gpt, lstm, mlp, resnet18"),
        ("optim.lr=[", "cannot read 'optim.lr=['"),
        ("seed=${x}", "seed: Interpolation key 'x' not found"),
    ],
)
def test_keys_are_refused_with_the_nearest(words, says):
    assert told(words).startswith(says)
    assert "\n" not in told(words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("model.dropout=2", "model.dropout must be in [0, 1], got 2.0"),
        ("model=mlp model.dropout=-1", "model.dropout must be in [0, 1], got -1.0"),
        ("model=mlp model.hidden=[8,-3]", "model.hidden must be at least 1, got -3"),
        ("model.channels=0", "model.channels must be at least 1, got 0"),
        ("model.hidden=1000000000000", "model CNN cannot be made with these values: MemoryError: "),
        (TEXT + "model.n_head=3", "model GPT cannot be made with these values: GPTConfig: n_embd must be a multiple"),
        (TEXT + "data.stride=0", "data.stride must be at least 1, got 0"),
        (TEXT + "data.block_size=1000000000", "data stdlib_text cannot be made with these values: "),
        ("optim.betas=[0.9]", "optim.betas must be two numbers in [0, 1), got [0.9]"),
        ("optim.betas=[0.9,1]", "optim.betas must be two numbers in [0, 1), got [0.9, 1.0]"),
        ("optim.betas=[0.9,nan]", "optim.betas must be a finite number, got nan"),
        ("optim.eps=-1", "optim Adam cannot be made with these values: Invalid epsilon value: -1.0"),
        ("optim=sgd optim.nesterov=true optim.momentum=0", "optim SGD cannot be made with these values: Nesterov"),
        ("+optim.amsgrad=maybe", "optim.amsgrad must be bool, got maybe"),
        ("optim.name=Optimizer", "optim.name must be one of Adadelta, Adagrad, "),
        ("optim.lr=-1", "optim.lr must be positive, got -1"),
        ("launch.ranks=0", "launch.ranks must be at least 1, got 0"),
        ("data.batch_size=1", "data.batch_size is 1 samples for launch.ranks=2; give each rank at least one"),
        ("optim.lr=abc", "optim.lr=abc: Value 'abc' of type 'str' could not be converted to Float"),
        ("seed=100000000000000000000", "seed must be a number of 64 bits"),
        ("scheduler.final=-1", "scheduler.final must be zero or more, got -1.0"),
        ("launch.timeout_s=0", "launch.timeout_s must be positive, or null, got 0.0"),
        (
            "data.batch_size=0 data.epochs=0",
            "data.batch_size must be at least 1, got 0; data.epochs must be at least 1",
        ),
    ],
)
def test_values_are_refused_before_any_rank_starts(words, says):
    assert told(words).startswith(says)
    assert "\n" not in told(words)


def test_schemas_name_arguments_that_are_there():
    """And the sizes that the data decide are none of them."""
    for section, module in (("model", rushlight_models), ("optim", rushlight_optim)):
        for one in schema.GROUPS[section].values():
            keys = set(vars(one(lr=1.0) if section == "optim" else one())) - {"name"}
            name = one.__dataclass_fields__["name"].default
            assert keys <= set(build.arguments(section, name))
            assert keys.isdisjoint({"params", "vocab_size", "classes"})
            assert inspect.isclass(getattr(module, name))
