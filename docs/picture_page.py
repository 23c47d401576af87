"""Pictures the page of export/serve.py, as README and docs show it: docs/page.png.

    python docs/picture_page.py --model=fashion_mnist28 --label="Ankle boot" --output=docs/page.png

It exports the model, serves it, and has a browser sample a class and vary one of the samples. Besides haim_tf
with its extra serve it needs selenium, chromium and chromedriver.
"""

import io
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import app, flags
from PIL import Image

import haim_tf

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "fashion_mnist28", "Name of a model with codes and classes, or a preset folder.")
flags.DEFINE_string("label", "Ankle boot", "Which class is sampled.")
flags.DEFINE_integer("pick", 0, "Which of the samples is varied.", lower_bound=0, upper_bound=7)
flags.DEFINE_string("output", "docs/page.png", "The picture.")
SERVE = Path(__file__).parents[1] / "export/serve.py"
BROWSER = ["headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "window-size=960,400"]
COLORS = 64
SECONDS = 600


def main(argv):
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "exported", Path(FLAGS.model).name)
        haim_tf.saved_model.export(haim_tf.load(FLAGS.model), model, batch_sizes=[8])
        port, metrics_port = free_ports(2)
        flags = [f"--folder={model}", "--replicas=1", f"--port={port}", f"--metrics_port={metrics_port}"]
        server = subprocess.Popen([sys.executable, SERVE, *flags], stdout=subprocess.PIPE, text=True)
        try:
            for line in server.stdout:
                if line.startswith("serving"):
                    break
            else:
                raise RuntimeError("the server ended before it served")
            picture(f"http://127.0.0.1:{port}/").save(FLAGS.output, optimize=True)
        finally:
            server.terminate()
            server.communicate()
    print(f"the page in {FLAGS.output}")


def picture(address):
    """The page after its first class was sampled and a picture varied."""
    from selenium import webdriver
    from selenium.webdriver.support.select import Select
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))))
    for flag in BROWSER:
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:

        def wait_for(start):
            told = browser.find_element("id", "status")
            WebDriverWait(browser, SECONDS).until(lambda _: told.text.startswith(start))

        browser.get(address)
        wait_for("Pick")
        Select(browser.find_element("id", "label")).select_by_visible_text(FLAGS.label)
        browser.find_element("id", "sample").click()
        wait_for("Pick")
        browser.find_elements("css selector", "#samples img")[FLAGS.pick].click()
        wait_for("The higher")
        # The window's frame is no part of what is seen.
        measured = "document.documentElement.scrollHeight + window.outerHeight - window.innerHeight"
        browser.set_window_size(960, browser.execute_script(f"return {measured}"))
        shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    finally:
        browser.quit()
    return shot.quantize(COLORS, dither=Image.Dither.NONE)


def free_ports(count):
    """Ports that nothing listens on, no two alike."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


if __name__ == "__main__":
    app.run(main)
