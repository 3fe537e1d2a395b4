# SPDX-License-Identifier: MIT
"""A headless Chromium, for what only a browser can show: that a page works, and how it looks.

    with Browser(folder) as browser:
        browser.open("http://127.0.0.1:8081/")
        browser.wait("document.title")             the first truthy value of an expression
        browser.until(lambda: browser.text("h1") == "Postern", "the title")
        browser.picture("page.png")
"""

import os
from pathlib import Path

from process import Failure, wait_until

CHROMIUM = "/usr/bin/chromium"
CHROMEDRIVER = "/usr/bin/chromedriver"


class Browser:
    """`folder` is for its profile. No window, no sandbox where it runs as root, nothing looked up outside. `dark`: what
    the user prefers; `touch`: a phone."""

    def __init__(self, folder, width=1280, height=800, dark=False, touch=False):
        for program in (CHROMIUM, CHROMEDRIVER):
            if not Path(program).exists():
                raise Failure(f"{program} is missing: toolchains/install.sh pictures")
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for word in ("headless=new", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking",
                     "disable-component-update", "disable-sync", "disable-quic", "no-first-run",
                     "hide-scrollbars", "force-color-profile=srgb", f"window-size={width},{height}",
                     f"user-data-dir={folder}", "no-proxy-server"):
            options.add_argument(f"--{word}")
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service(CHROMEDRIVER), options=options)
        # The window has a frame that is not there, so that the page itself would be smaller than asked for.
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.driver.quit()

    def open(self, url):
        self.driver.get(url)

    def run(self, script, *arguments):
        """Runs JavaScript in the page; its `return` value."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, expression, timeout_s=60.0):
        """The first truthy value of a JavaScript expression."""
        return wait_until(lambda: self.run(f"return {expression}"), timeout_s, f"{expression} in the page", 0.1)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def text(self, selector):
        """What is to be read in the first element of a CSS selector."""
        return self.find(selector).text

    def until(self, condition, what, timeout_s=60.0):
        """wait_until, which shows the page's text when it was in vain."""
        try:
            return wait_until(condition, timeout_s, what, 0.05)
        except Failure as failure:
            raise Failure(f"{failure}; the page says:\n{self.text('body')}") from None

    def complaints(self):
        """What the page's scripts logged as errors, since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def picture(self, path):
        """A PNG of what is to be seen."""
        if not self.driver.save_screenshot(str(path)):
            raise Failure(f"{path} cannot be written")
