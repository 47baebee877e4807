"""data.*: the images."""

from dataclasses import dataclass
from math import inf
from typing import Annotated, Literal

from daas_dist.config.rules import OpenShare, Positive, Text, check_url, is_url, one_of, refuse
from daas_dist.documents.checked import Count, Natural, Rule

Channels = Annotated[int, one_of(1, 3)]
Limit = Annotated[int, Rule(lambda n: n >= 2, "at least 2 or null for all")]
Means = Annotated[list[float], Rule(lambda v: all(-inf < x < inf for x in v), "finite numbers")]
Scales = Annotated[list[float], Rule(lambda v: all(0 < x < inf for x in v), "numbers above 0")]
Parts = Annotated[
    list[float],
    Rule(
        lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1,
        "two shares of the area, least and most, above 0 and at most 1",
    ),
]
Jitter = Annotated[
    list[float],
    Rule(
        lambda v: len(v) == 4 and all(0 <= x < inf for x in v) and v[3] <= 0.5,
        "brightness, contrast, saturation and hue, each 0 or more, hue at most 0.5",
    ),
]
CHANNELS = {"fashion_mnist": 1, "cifar10": 3, "cifar100": 3}
"""Channels of the sets whose files have one form."""
ANY_SIZE = ("folder", "shards", "stream")
"""What data.* may name whose images are of any size."""


@dataclass(kw_only=True, slots=True)
class Data:
    name: Literal["fashion_mnist", "cifar10", "cifar100", "folder", "shards", "stream"]
    root: Text | None
    val_root: Text | None
    size: Count | None
    channels: Channels
    classes: Text
    images_per_class: Count | None
    crop_padding: Natural
    crop_scale: Parts | None
    test_resize: int | None
    flip: bool
    cutout: Natural
    color_jitter: Jitter | None
    lighting: Positive | None
    mean: Means | None
    std: Scales | None
    val_share: OpenShare
    limit: Limit | None
    test_limit: Count | None
    max_bad_files: Natural
    download: bool
    workers: Natural | None
    shuffle_window: Count | None
    cache: Text | None
    cache_gb: Positive

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                wanted = f"{self.channels} numbers, as data.channels={self.channels}"
                refuse(f"data.{name}", values, wanted)
        if (self.mean is None) != (self.std is None):
            wanted = "null, as data.mean is null" if self.std else "numbers, as data.mean has them"
            refuse("data.std", self.std, wanted)
        if self.lighting is not None and self.channels != 3:
            refuse("data.lighting", self.lighting, "null, as data.channels=1: it is of colours")
        self._check_source()

    def _check_source(self) -> None:
        if self.name == "folder" and self.root is None:
            refuse("data.root", None, "the path of a folder with one sub-folder a class")
        if self.name == "shards" and self.root is None:
            refuse("data.root", None, "a folder of shards that `daas shards build` has made")
        if self.name.startswith("cifar") and self.root is None:
            refuse("data.root", None, f"the path of the folder that holds {self.name} or gets it")
        if self.name in ANY_SIZE:
            if self.download:
                refuse("data.download", True, f"false, as data={self.name} is not downloaded")
            if self.size is None:
                refuse("data.size", None, "the side in pixels to which the images are brought")
        else:
            if self.size is not None:
                refuse("data.size", self.size, f"null, as {self.name} images have one size already")
            if self.channels != CHANNELS[self.name]:
                wanted = f"{CHANNELS[self.name]}, as {self.name} images have"
                refuse("data.channels", self.channels, wanted)
            if self.val_root is not None:
                wanted = f"null, as {self.name} has its own test images"
                refuse("data.val_root", self.val_root, wanted)
        if self.name == "stream":
            self._check_stream()
        if self.name != "shards":
            only = f"{{}}, as data={self.name}: only data=shards has that"
            cut = () if self.name == "stream" else ("crop_scale", "test_resize")
            for name in ("images_per_class", *cut, "shuffle_window", "cache"):
                if getattr(self, name) is not None:
                    refuse(f"data.{name}", getattr(self, name), only.format("null"))
            if self.classes != "all" and self.name != "stream":
                refuse("data.classes", self.classes, only.format("all"))
        if self.name in ("shards", "stream"):
            self._check_cut()
        if self.name == "shards":
            self._check_cache()

    def _check_cut(self) -> None:
        if self.test_resize is not None and self.size and self.test_resize < self.size:
            refuse("data.test_resize", self.test_resize, f"at least data.size={self.size}, or null")
        if self.crop_scale is not None and self.crop_padding:
            wanted = "0, as data.crop_scale cuts a part of its own"
            refuse("data.crop_padding", self.crop_padding, wanted)

    def _check_stream(self) -> None:
        wanted = "as data=stream has no index that would tell"
        for name, what in (
            ("root", "where the training shards are"),
            ("val_root", "where the test shards are"),
            ("limit", f"how many training samples make an epoch, {wanted}"),
            ("test_limit", f"how many test samples there are, {wanted}"),
            ("mean", "numbers, as data=stream is not measured"),
        ):
            if getattr(self, name) is None:
                refuse(f"data.{name}", None, what)
        for key, place in (("data.root", self.root), ("data.val_root", self.val_root)):
            if is_url(place):
                check_url(key, str(place))
        if not self.classes.isdigit() or int(self.classes) < 2:
            refuse("data.classes", self.classes, f"how many classes there are, {wanted}")
        if self.max_bad_files:
            refuse("data.max_bad_files", self.max_bad_files, "0, as a stream has no other at hand")

    def _check_cache(self) -> None:
        urls = {"data.root": self.root, "data.val_root": self.val_root}
        urls = {key: place for key, place in urls.items() if place is not None and is_url(place)}
        for key, url in urls.items():
            check_url(key, url)
        if urls and self.cache is None:
            refuse("data.cache", None, f"a local folder, as {' and '.join(urls)} is a URL")
        if self.cache is not None and not urls:
            refuse("data.cache", self.cache, "null, as data.root is no URL: it is read in place")
        if self.cache is not None and is_url(self.cache):
            refuse("data.cache", self.cache, "a local folder")
