"""A trained row read back: its network, what it takes of a picture, files that are not whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trained_rows
from found_results import mixed_policy, plain, save
from images import fashion, photographs, to_pil
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

import daas_dist
from daas_dist.results import searched, trained
from daas_dist.results.trained import Input, Preprocess


@pytest.mark.parametrize("name", ["genotype", "small"])
def test_three_lines_give_the_logits_of_the_network_that_was_trained(
    tmp_path: Path, name: str
) -> None:
    path = trained_rows.save(tmp_path, trained_rows.document(name))
    images_u8 = fashion(8, 1)
    pictures = [to_pil(image) for image in images_u8]

    row = daas_dist.load(path)
    network, preprocess = row.network(), row.preprocess()
    logits = network(torch.stack([preprocess(picture) for picture in pictures]))

    by_hand = (images_u8 / 255 - trained_rows.MEAN) / trained_rows.STD
    expected = trained_rows.network(name)(by_hand)
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-6)
    assert row.classes == trained_rows.CLASSES


def test_its_policy_is_the_one_it_was_trained_with(tmp_path: Path) -> None:
    row = trained_rows.document(policy=plain(mixed_policy()))
    assert trained.load(trained_rows.save(tmp_path, row)).transform().policy == mixed_policy()
    without = trained.load(trained_rows.save(tmp_path, trained_rows.document()))
    with pytest.raises(ValueError, match="without a policy"):
        without.transform()


# ---------------------------------------------------------------- preprocessing

COLOUR = Input((3, 24, 24), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), test_resize=30)


@pytest.mark.parametrize("size", [(64, 48), (40, 90), (24, 24)])
def test_pictures_are_cut_as_torchvisions_resize_and_centre_crop(size: tuple[int, int]) -> None:
    picture = to_pil(photographs(1, 3, size[1], size[0])[0])
    reference = v2.Compose(
        [
            v2.Resize(30),
            v2.CenterCrop(24),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(COLOUR.mean, COLOUR.std),
        ]
    )
    given, expected = Preprocess(COLOUR)(picture), reference(picture)
    levels = (given - expected).abs() * torch.tensor(COLOUR.std)[:, None, None] * 255
    assert float(levels.max()) < 2.01  # of 255: here only the box that is cut is resized
    assert float(levels.mean()) < 0.2


def test_tensors_are_cut_too_and_labels_pass() -> None:
    preprocess = Preprocess(COLOUR)
    batch = photographs(3, 3, 64, 48)
    images, label = preprocess(tv_tensors.Image(batch), 7)
    assert label == 7 and images.shape == (3, 3, 24, 24)
    singly = torch.stack([preprocess(image) for image in batch])
    torch.testing.assert_close(images, singly, atol=0, rtol=0)
    of_pil = torch.stack([preprocess(to_pil(image)) for image in batch])
    assert float((images - of_pil).abs().mean()) < 0.02


def test_a_picture_on_its_side_with_transparency_is_read_as_in_training(tmp_path: Path) -> None:
    """EXIF 6: turned a quarter. White shows where nothing is painted (data/decode.py)."""
    upright = to_pil(photographs(1, 3, 40, 40)[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90).save(tmp_path / "side.png", exif=exif)
    preprocess = Preprocess(COLOUR)
    with Image.open(tmp_path / "side.png") as on_its_side:
        assert torch.equal(preprocess(on_its_side), preprocess(upright))
    clear = Image.new("RGBA", (40, 40), (9, 9, 9, 0))
    white = preprocess(Image.new("RGB", (40, 40), "white"))
    assert torch.equal(preprocess(clear), white)


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (torch.zeros(3, 8, 8), ValueError, r"torch.float32 \[3, 8, 8\]; expected a PIL image or"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), ValueError, r"uint8 tensor \[3, H, W\]"),
        (tv_tensors.Mask(torch.zeros(8, 8, dtype=torch.uint8)), TypeError, "Mask in the sample"),
    ],
)
def test_what_is_no_image_of_its_channels_is_refused(
    image: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Preprocess(COLOUR)(image)


# ---------------------------------------------------------------- files that are not whole


def test_weights_with_a_changed_byte_are_refused(tmp_path: Path) -> None:
    path = trained_rows.save(tmp_path)
    weights = tmp_path / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="sha256 is .*, expected .*; copy both from the run again"):
        trained.load(path).network()
    weights.unlink()
    with pytest.raises(ValueError, match="no file .*weights.safetensors"):
        trained.load(path).network()


def _set(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("weights", "file", value="../weights.safetensors"), "a name in the result's own"),
        (_set("weights", "file", value=["x"]), r"weights.file is \['x'\], expected a text"),
        (_set("network", "classes", value=9), "9 classes and 1 channels, its data 10 and 1"),
        (_set("network", "genotype", value=None), "contradicts"),
        (_set("network", "name", value="small"), "contradicts"),
        (_set("data", "shape", value=[1, 28, 30]), "expected a square"),
        (_set("data", value={}), "has no data.classes"),
        (_set("schema", value=2), "schema is 2, expected 1"),
        (lambda document: document.pop("recipe"), "has no recipe"),
    ],
)
def test_a_result_that_is_not_whole_is_one_sentence(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    path = trained_rows.save(tmp_path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=words):
        trained.load(path)


def test_what_a_search_found_is_no_trained_network(tmp_path: Path) -> None:
    (tmp_path / "row").mkdir()
    found, row = save(tmp_path), trained_rows.save(tmp_path / "row")
    with pytest.raises(ValueError, match=r"result.json is not the result.json of a trained netw"):
        trained.load(found)
    with pytest.raises(ValueError, match=r"row/result.json is not the result.json of a search"):
        searched.load(row)


def test_weights_of_another_network_do_not_fit(tmp_path: Path) -> None:
    path = trained_rows.save(tmp_path)
    document = json.loads(path.read_text())
    document["network"]["channels"] = 6
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="does not fit its network"):
        trained.load(path).network()
