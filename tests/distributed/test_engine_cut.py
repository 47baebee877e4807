"""A batch is cut into micro-batches, which ranks share; what cannot be names the nearest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daas_dist import config as configuration
from daas_dist.config.rules import ConfigError, nearest_divisors, nearest_multiples
from daas_dist.distributed.cut import cut
from daas_dist.rng import Part

few = st.integers(1, 12)


@given(few, few, few)
def test_ranks_hold_consecutive_runs_of_equal_length(size: int, each: int, ranks: int) -> None:
    cuts = [cut(size * each * ranks, size, Part(rank, ranks)) for rank in range(ranks)]
    assert [number for its in cuts for number in its.own] == list(range(each * ranks))
    assert {len(its.own) for its in cuts} == {each}


@given(few, few)
def test_without_a_size_every_rank_has_one_micro_batch(size: int, ranks: int) -> None:
    assert cut(size * ranks, None, Part(0, ranks)).micro_batch == size
    assert cut(size * ranks, None, Part(ranks - 1, ranks)).own == range(ranks - 1, ranks)


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "ranks", "expected"),
    [
        (97, None, 4, "batch_size=97 cannot be shared by 4 ranks: expected 96 or 100, or 1 or 97"),
        (96, None, 5, "expected 95 or 100, or 4 or 6 as the number of ranks"),
        (96, 16, 4, "96 is 6 micro-batches of 16, which 4 ranks cannot share: expected 3 or 6 as"),
        (96, 16, 4, "number of ranks, or 64 or 128 as the batch size"),
        (96, 32, 8, "expected 3 as the number of ranks, or 256 as the batch size"),
        (100, 32, 1, "no whole number of micro-batches of 32: expected 96 or 128"),
    ],
)
def test_what_does_not_divide_is_refused_with_the_nearest_that_does(
    batch_size: int, micro_batch: int | None, ranks: int, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        cut(batch_size, micro_batch, Part(0, ranks))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@given(st.integers(1, 200), st.integers(2, 40))
def test_the_nearest_are_the_nearest(value: int, unit: int) -> None:
    """Against a search through all."""
    if value % unit:
        multiples = [n for n in range(1, 400) if n % unit == 0]
        expected = [
            *[n for n in multiples if n < value][-1:],
            min(n for n in multiples if n > value),
        ]
        assert nearest_multiples(value, unit) == " or ".join(map(str, expected))
        divisors = [n for n in range(1, value + 1) if value % n == 0]
        near = [*[n for n in divisors if n < unit][-1:], *[n for n in divisors if n > unit][:1]]
        assert nearest_divisors(value, unit) == " or ".join(map(str, near))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.micro_batch=20", "expected a multiple of train.micro_batch=20, as 80 or 100"),
        ("train.micro_batch=0", "train.micro_batch=0 is not possible: expected a whole number"),
        ("train.ema_decay=1", "train.ema_decay=1 is not possible: expected a number between"),
        ("engine.zero_stage=1", "DeepSpeed#2921"),
        ("engine.precision=int8", "engine.precision=int8 is not possible: expected one of fp32"),
        ("engine=fsdp", "expected one of alone, ddp, deepspeed"),
        ("engine.name=ddp", "engine.name comes with its group: use engine=NAME"),
    ],
)
def test_an_impossible_engine_is_refused_at_the_door(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configuration.load(["stage=train_cifar10", "train.result=r.json", override])
    assert expected in str(caught.value)


def test_big_trainings_take_all_ranks_and_small_ones_are_dealt() -> None:
    names = {}
    for stage in configuration.options("stage"):
        needs = ["data.root=/a"] if stage != "train_fashion" else []
        if stage.startswith("train"):
            loaded = configuration.load([f"stage={stage}", "train.result=r.json", *needs])
            names[stage.removeprefix("train_")] = loaded.engine.name
    big, small = ("cifar10", "cifar100", "imagenet"), ("fashion", "folder")
    assert names == dict.fromkeys(big, "ddp") | dict.fromkeys(small, "alone")


def test_a_search_has_no_engine() -> None:
    with pytest.raises(ConfigError, match="engine has no effect"):
        configuration.load(["engine=ddp"])
