# SPDX-License-Identifier: MIT
"""The gateway's live page in a real Chromium: it loads, shows the truth, and a client in it gets its receipts."""

import json

import pytest
from admin import fetch
from browser import Browser
from clients import Client
from process import free_port, wait_until
from test_bindings import open_backend, routed

DESKTOP = {"width": 1180, "height": 900}
PHONE = {"width": 390, "height": 844, "touch": True}


@pytest.fixture
def gateway(pipeline):
    gateway = pipeline.gateway(ADMIN_PORT=free_port(), GATEWAY_ID="gw-page", AMQP_HEARTBEAT="3")
    pipeline.processor()
    pipeline.wait_connected(gateway)
    return gateway


@pytest.fixture(params=[DESKTOP, {**DESKTOP, "dark": True}, PHONE], ids=["light", "dark", "phone"])
def browser(request, gateway, tmp_path):
    with Browser(tmp_path / "chromium", **request.param) as browser:
        browser.open(gateway.admin_url("/"))
        browser.until(lambda: browser.text("#gateway") == "gw-page", "the gateway's name")
        yield browser
        assert not browser.complaints(), "the browser's console has errors"


@pytest.fixture
def desktop(gateway, tmp_path):
    with Browser(tmp_path / "chromium", **DESKTOP) as browser:
        browser.open(gateway.admin_url("/"))
        browser.until(lambda: browser.text("#gateway") == "gw-page", "the gateway's name")
        yield browser


def connect(browser, client_id, receipts=""):
    browser.run("const id = document.getElementById('client-id'); id.value = arguments[0];"
                "document.getElementById('wanted').value = arguments[1];", client_id, receipts)
    browser.find("#connect-button").click()
    browser.until(lambda: browser.text("#said") == f"connected as {client_id}", "a connection")


def send(browser, content):
    browser.run("document.getElementById('content').value = arguments[0]", content)
    browser.find("#send-button").click()


def chips(browser):
    """The chips of the latest message: [(text, class)]."""
    return browser.run("return [...document.querySelector('#messages li').querySelectorAll('.chip')]"
                       ".map((chip) => [chip.textContent, chip.className])")


@pytest.mark.short
def test_it_connects_sends_and_sees_stored(browser, pipeline):
    browser.until(lambda: browser.text("#state-word") == "Ready", "all well")
    connect(browser, "page-test", "queued,stored")
    browser.until(lambda: browser.text("#clients") == "1", "itself among the clients")
    place = browser.run("return document.getElementById('h-log').getBoundingClientRect().top")
    send(browser, '{"temperature": 21.5}')
    browser.until(lambda: chips(browser)[2][1] == "chip good", "stored")
    accepted, queued, stored = chips(browser)
    assert accepted == ["accepted", "chip"]
    assert queued[0].startswith("queued ") and queued[0].endswith("ms") and stored[0].startswith("stored "), chips(browser)
    assert " stored after " in browser.run("return document.getElementById('heard').textContent")
    assert pipeline.query("SELECT content FROM messages WHERE client_id = 'page-test'") == [({"temperature": 21.5},)]
    # Nothing moved when the receipts came, and nothing is wider than the page.
    assert browser.run("return document.getElementById('h-log').getBoundingClientRect().top") == place
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    send(browser, "a plain text")
    browser.until(lambda: chips(browser)[2][1] == "chip good", "stored")
    assert pipeline.query("SELECT content FROM messages WHERE client_id = 'page-test' ORDER BY id DESC LIMIT 1") == [
        ("a plain text",)]
    browser.until(lambda: browser.run("return document.querySelector('#receipts tr:nth-child(3) td').textContent") == "3",
                  "three stored receipts in the table")
    browser.find("#connect-button").click()
    browser.until(lambda: browser.text("#said") == "disconnected", "the end")
    browser.until(lambda: browser.text("#clients") == "0", "nobody")


def test_every_refusal_is_said(desktop, gateway):
    with Client(gateway.url("taken")):
        desktop.run("document.getElementById('client-id').value = 'taken'")
        desktop.find("#connect-button").click()
        desktop.until(lambda: "4009" in desktop.text("#said"), "the refusal")
        assert "Already connected" in desktop.text("#said")
    connect(desktop, "page-test")
    send(desktop, '{"a":1,"a":2}')  # JSON that JavaScript takes and RFC 8259 discourages
    desktop.until(lambda: "twice" in desktop.text("#said"), "the error")
    send(desktop, "nul: \0")
    desktop.until(lambda: chips(desktop)[2][0].startswith("dead "), "a dead letter")
    desktop.until(lambda: desktop.run("return document.querySelector('#messages .why').textContent"), "the reason")
    assert not desktop.complaints()


def test_an_outage_and_its_end(desktop, gateway, pipeline):
    connect(desktop, "page-test")
    pipeline.broker.stop()
    desktop.until(lambda: "RabbitMQ takes no messages" in desktop.text("#findings"), "a warning")
    assert desktop.text("#state-word") == "Degraded"
    send(desktop, "while it is away")
    desktop.until(lambda: chips(desktop)[0][1] == "chip good", "accepted")
    assert chips(desktop)[2] == ["stored", "chip"]
    desktop.until(lambda: "amqp_lost" in desktop.text("#log"), "the log")
    pipeline.broker.cont()
    desktop.until(lambda: chips(desktop)[2][1] == "chip good", "stored")
    desktop.until(lambda: desktop.text("#state-word") == "Ready", "all well")
    gateway.kill9()
    desktop.until(lambda: desktop.text("#state-word") == "No answer", "the gateway missed")
    gateway.start()
    desktop.until(lambda: desktop.text("#state-word") == "Ready", "all well")


def test_what_strangers_wrote_stays_text(desktop, gateway, pipeline):
    """A log line and an answer with HTML in them become text; a script in them never runs."""
    evil = "<img src=x onerror=window.evil=1><script>window.evil=1</script>"
    connect(desktop, "page-test")
    backend = open_backend(pipeline)
    wait_until(lambda: routed(backend, "page-test", json.dumps({"x": evil}).encode()), 60, "the client's binding")
    desktop.until(lambda: evil in desktop.text("#said"), "the message as text")
    pipeline.channel().basic_publish("postern.downlink", f"client.{evil}", b"{}")
    pipeline.channel().queue_bind("postern.gateway.gw-page", "postern.downlink", f"odd.{evil}")
    pipeline.channel().basic_publish("postern.downlink", f"odd.{evil}", b"{}")
    gateway.wait_log(event="downlink_message_unknown")
    desktop.until(lambda: "onerror" in desktop.text("#log"), "the line in the log")
    assert desktop.run("return window.evil === undefined && !document.querySelector('#log img, #log script')")


def test_the_policy_lets_nothing_else_in(desktop, gateway):
    """Its own style and script, its own numbers, and the gateway's port: nothing else can be loaded or run."""
    policy = fetch(gateway.admin_url("/"))[1]["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and f"ws://*:{gateway.port}" in policy
    refused = desktop.driver.execute_async_script("""
        const done = arguments[0];
        const refused = [];
        document.addEventListener('securitypolicyviolation', (event) => refused.push(event.effectiveDirective));
        const script = document.createElement('script');
        script.textContent = 'window.evil = 1';
        document.body.append(script);
        document.body.append(Object.assign(document.createElement('img'), {src: '/metrics'}));
        document.body.append(Object.assign(document.createElement('link'), {rel: 'stylesheet', href: '/metrics'}));
        fetch('http://127.0.0.1:1/').catch(() => {});
        try { new WebSocket('ws://127.0.0.1:1/'); } catch (error) { refused.push('connect-src'); }
        setTimeout(() => done(refused), 1000);
    """)
    assert {"script-src-elem", "img-src", "style-src-elem", "connect-src"} <= set(refused), refused
    assert desktop.run("return window.evil === undefined")


def test_it_works_without_a_mouse(desktop):
    """Tab leads through everything that can be used, in order, and the keyboard alone sends a message."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys):
        ActionChains(desktop.driver).send_keys(*keys).perform()

    def focused():
        return desktop.run("return document.activeElement.id || document.activeElement.textContent")
    order = []
    for _ in range(9):
        press(Keys.TAB)
        order.append(focused())
    assert order == ["client-id", "wanted", "connect-button", "messages", "log", "/metrics", "/readyz", "/healthz",
                     "/status.json"]
    desktop.run("document.getElementById('client-id').focus()")
    press(Keys.ENTER)
    desktop.until(lambda: focused() == "content", "the connection")
    ActionChains(desktop.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    desktop.until(lambda: chips(desktop)[2][1] == "chip good", "stored")
    unnamed = desktop.run("""return [...document.querySelectorAll('input, select, textarea, button, [role=meter], section')]
        .filter((each) => !(each.labels && each.labels.length) && !each.textContent.trim() &&
                          !each.getAttribute('aria-labelledby') && !each.getAttribute('aria-label'))
        .map((each) => each.outerHTML)""")
    assert not unnamed, unnamed


def contrast(first, second):
    def light(colour):
        parts = [part / 255 for part in colour]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue
    high, low = sorted((light(first), light(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_its_colours_can_be_read(gateway, tmp_path, dark):
    """Every pair of text and ground that the page uses has the contrast that WCAG's AA asks for, 4.5 to 1."""
    with Browser(tmp_path / "chromium", **DESKTOP, dark=dark) as browser:
        browser.open(gateway.admin_url("/"))
        colours = browser.run("""
            const style = getComputedStyle(document.documentElement);
            const names = ['back', 'card', 'field', 'ink', 'soft', 'accent', 'accent-ink', 'good', 'good-wash', 'warn',
                           'warn-wash', 'bad', 'bad-wash'];
            return Object.fromEntries(names.map((name) => [name, style.getPropertyValue('--' + name).trim()]));
        """)
    values = {}
    for name, text in colours.items():
        digits = text.lstrip("#")
        digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
        values[name] = [int(digits[at:at + 2], 16) for at in (0, 2, 4)]
    pairs = [("ink", "card"), ("ink", "back"), ("ink", "field"), ("soft", "card"), ("soft", "back"), ("soft", "field"),
             ("accent", "card"), ("accent", "back"), ("accent-ink", "accent"), ("good", "card"), ("good", "good-wash"),
             ("warn", "card"), ("warn", "warn-wash"), ("bad", "card"), ("bad", "bad-wash")]
    poor = {pair: round(contrast(values[pair[0]], values[pair[1]]), 2) for pair in pairs
            if contrast(values[pair[0]], values[pair[1]]) < 4.5}
    assert not poor, poor

