"""The package's frozen dataclasses behave as if they were defined by the standard library."""

import copy
import dataclasses
import inspect
import pickle
from dataclasses import KW_ONLY, FrozenInstanceError, field, fields, replace
from typing import Any, ClassVar

import pytest

from mlp_xp._utils.dataclass import dataclass as ours
from mlp_xp.optimizers import SGD, Adam, AdamW


def classes(dataclass: Any) -> tuple[type, type]:
    @dataclass(frozen=True)
    class Base:
        """A class with all kinds of fields."""

        name: str
        sizes: tuple[int, ...] = ()
        _: KW_ONLY
        notes: list[str] = field(default_factory=list, compare=False, repr=False)
        kind: ClassVar[str] = "base"

        def __post_init__(self) -> None:
            object.__setattr__(self, "sizes", tuple(self.sizes))

    @dataclass(frozen=True)
    class Derived(Base):
        """A class with one more field, and its own text."""

        rate: float = 0.5

        def __repr__(self) -> str:
            return f"<{self.name}>"

    return Base, Derived


@pytest.fixture(params=[dataclasses.dataclass, ours], ids=["standard", "ours"])
def kinds(request):
    return classes(request.param)


def test_dataclass_fields_equality_and_repr(kinds):
    base, derived = kinds
    one = base("a", [1, 2], notes=["x"])
    assert one == base("a", (1, 2))
    assert hash(one) == hash(base("a", (1, 2)))
    assert one != base("b", (1, 2))
    assert one != derived("a", (1, 2))
    assert one != "a"
    assert repr(one).endswith("Base(name='a', sizes=(1, 2))")
    assert repr(derived("b")) == "<b>"
    assert [f.name for f in fields(derived)] == ["name", "sizes", "notes", "rate"]
    assert replace(derived("a", rate=2.0), name="b") == derived("b", rate=2.0)
    assert copy.deepcopy(one) == one
    assert copy.deepcopy(one).notes == ["x"]
    assert list(inspect.signature(base).parameters) == ["name", "sizes", "notes"]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'name'"):
        base()


def test_dataclass_attributes_are_immutable(kinds):
    for one in (kinds[0]("a"), kinds[1]("a")):
        for name in ("name", "sizes", "other"):
            with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
                setattr(one, name, "b")
            with pytest.raises(FrozenInstanceError, match=f"cannot delete field '{name}'"):
                delattr(one, name)
        assert one.name == "a"


def test_plain_subclasses_can_have_extra_attributes(kinds):
    class Plain(kinds[1]):
        pass

    one = Plain("a")
    one.cache = 1
    assert one.cache == 1
    del one.cache
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'rate'"):
        one.rate = 1.0


def test_users_can_derive_frozen_dataclasses(kinds):
    @dataclasses.dataclass(frozen=True)
    class Mine(kinds[1]):
        more: int = 1

    assert Mine("a", more=2) == Mine("a", more=2) != Mine("a")
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'more'"):
        Mine("a").more = 3
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):
        dataclasses.dataclass(type("Other", (kinds[0],), {}))


@pytest.mark.parametrize("dataclass", [dataclasses.dataclass, ours])
def test_dataclasses_can_compare_by_identity(dataclass):
    @dataclass(frozen=True, eq=False)
    class Run:
        losses: list[float]

    one = Run([0.5])
    assert one == one
    assert one != Run([0.5])
    assert len({one, Run([0.5])}) == 2


def test_optimizer_dataclasses_pickle_hash_and_are_immutable():
    assert repr(SGD(momentum=0.5)) == "SGD(momentum=0.5, nesterov=True)"
    assert pickle.loads(pickle.dumps(Adam(beta_1=0.8))) == Adam(beta_1=0.8)  # noqa: S301
    assert AdamW() != Adam()
    assert len({Adam(), Adam(), AdamW()}) == 2
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'beta_1'"):
        Adam().beta_1 = 0.5


def test_dataclasses_share_their_generated_methods():
    for name in ("__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"):
        assert vars(SGD)[name] is vars(Adam)[name]
