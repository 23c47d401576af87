"""The page at `/`, in a real browser without a screen."""

import base64
import io
import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import haim_tf
from haim_tf import saved_model

pytest.importorskip("ray", reason="ray[serve] is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")
sys.path.insert(0, os.path.dirname(__file__))
from running import Running

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow(reason="starts a server and a browser"),
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed"),
]
FLAGS = ["headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    config = haim_tf.load("debug").get_config()
    config["prior"] = {**config["prior"], "label_dropout": 0.1}
    model = haim_tf.HierarchicalModel.from_config(config).with_labels(2)
    rng = np.random.default_rng(0)
    for network in (model.prior, model.decoders[1]):  # Labels and guidance tell.
        for weight in (network.embed_label.embeddings, network.last.kernel):
            weight.assign(rng.normal(0, 1, weight.shape))
    model.sampling_defaults = {"temperature": [0.5, 0.9, 1.0], "guidance": 1.5}
    saved_model.export(model, folder / "debug", batch_sizes=[8])
    server = Running(folder / "debug", folder / "log", "--replicas=1", "--max_batch_size=8")
    yield server
    server.stop()


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in [*FLAGS, "disable-sync", f"user-data-dir={tmp_path / 'profile'}", "window-size=1000,800"]:
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


def pictures(browser, place):
    images = browser.find_elements("css selector", f"{place} img")
    return [base64.b64decode(x.get_attribute("src").split(",")[1]) for x in images]


def test_pick_sample_and_vary(server, browser, tmp_path):
    from selenium.webdriver.support.select import Select
    from selenium.webdriver.support.ui import WebDriverWait

    def wait(condition):
        WebDriverWait(browser, 60).until(lambda _: condition())

    def status():
        return browser.find_element("id", "status").text

    def set_to(name, value):
        field = browser.find_element("id", name)
        field.clear()
        field.send_keys(str(value))

    browser.get(f"http://127.0.0.1:{server.port}/")
    wait(lambda: status().startswith("Pick"))
    assert browser.title == "debug, version 1"
    select = Select(browser.find_element("id", "label"))
    assert [option.text for option in select.options][:2] == ["zero", "one"]
    for name, own in (("temperature", "0.5 0.9 1"), ("top_p", "1"), ("guidance", "1.5")):
        field = browser.find_element("id", name)
        assert (field.get_attribute("placeholder"), field.get_attribute("value")) == (own, "")
    _, answer = server.ask("/sample", {"instances": [{"label": 0, "seed": [0, i]} for i in range(8)]})
    assert pictures(browser, "#samples") == [
        base64.b64decode(x["image_bytes"]["b64"]) for x in answer["predictions"]
    ]
    select.select_by_visible_text("seven")
    set_to("seed", 3)
    set_to("temperature", 0.8)
    set_to("top_p", 0.9)
    set_to("guidance", 4)
    sampling = {"temperature": 0.8, "top_p": 0.9}
    heeded = {2: {"label": 7, "guidance": 4}, 1: {}}  # What the decoders of a level and below are told.
    first = pictures(browser, "#samples")
    browser.find_element("id", "sample").click()
    wait(lambda: status().startswith("Pick") and pictures(browser, "#samples") != first)
    shown = pictures(browser, "#samples")
    _, answer = server.ask(
        "/sample",
        {"instances": [{"label": 7, "seed": [3, i], **sampling, "guidance": 4} for i in range(8)]},
    )
    assert shown == [base64.b64decode(x["image_bytes"]["b64"]) for x in answer["predictions"]]

    browser.find_elements("css selector", "#samples img")[2].click()
    wait(lambda: status().startswith("The higher"))
    levels = browser.find_elements("css selector", "#variations .level")
    assert len(levels) == 2
    _, answer = server.ask("/encode", {"instances": [{"image": answer["predictions"][2]["image"]}]})
    for place, level in ((1, 2), (2, 1)):
        found = pictures(browser, f"#variations .level:nth-of-type({place})")
        assert found[0] == shown[2] and len(set(found)) == 9
        codes = answer["predictions"][0][f"codes_{level}"]
        rows = [{f"codes_{level}": codes, "seed": [4, i], **sampling, **heeded[level]} for i in range(8)]
        _, decoded = server.ask(f"/decode_level_{level}", {"instances": rows, "outputs": ["image_bytes"]})
        assert found[1:] == [base64.b64decode(x["image_bytes"]["b64"]) for x in decoded["predictions"]]
    browser.save_screenshot(str(tmp_path / "page.png"))  # To look at: --basetemp says where.

    # A picture of one's own, wider than it is high: its centre, shown, measured and varied.
    centre = np.random.default_rng(0).integers(0, 256, (16, 16, 3), "uint8")
    picture = np.concatenate([np.zeros((16, 4, 3), "uint8"), centre, np.zeros((16, 4, 3), "uint8")], axis=1)
    Image.fromarray(picture).save(tmp_path / "own.png")
    browser.find_element("id", "own").send_keys(str(tmp_path / "own.png"))
    wait(lambda: "bits/dim at most, as seven" in status())
    (shown,) = pictures(browser, "#samples")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown)).convert("RGB")), centre)
    _, answer = server.ask("/log_prob", {"instances": [{"image": centre.tolist(), "label": 7}]})
    told = answer["predictions"][0]
    assert status().startswith(f"{told['bits_per_dim']:.3f} bits/dim")
    assert f"prior {told['bits_per_dim_prior']:.3f})" in status()
    _, answer = server.ask("/encode", {"instances": [{"image": centre.tolist()}]})
    for place, level in ((1, 2), (2, 1)):
        codes = answer["predictions"][0][f"codes_{level}"]
        rows = [{f"codes_{level}": codes, "seed": [4, i], **sampling, **heeded[level]} for i in range(8)]
        _, decoded = server.ask(f"/decode_level_{level}", {"instances": rows, "outputs": ["image_bytes"]})
        found = pictures(browser, f"#variations .level:nth-of-type({place})")
        assert found[1:] == [base64.b64decode(x["image_bytes"]["b64"]) for x in decoded["predictions"]]
    browser.save_screenshot(str(tmp_path / "own_picture.png"))
    (tmp_path / "own.txt").write_text("no picture")
    browser.find_element("id", "own").send_keys(str(tmp_path / "own.txt"))
    wait(lambda: status() == "own.txt must be a picture that this browser can read")

    set_to("temperature", 101)
    browser.find_element("id", "sample").click()
    wait(lambda: "temperature must be one number from 0.0 to 100.0" in status())
    errors = [x for x in browser.get_log("browser") if "favicon" not in str(x) and "400" not in str(x)]
    assert not errors
