"""The dashboard in a real browser, over the real binary, before the simulated provider: what a person sees is what the
listener says, live, on a desk and on a phone, in the light and in the dark, with eyes, a keyboard or a screen reader.

`just browser` runs it; `just browser --screenshots` also writes docs/screenshots anew.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

from devtools import PATIENCE, Browser

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("TAILWIRE_BINARY", str(ROOT / "target" / "debug" / "tailwire"))
CONTRAST = (pathlib.Path(__file__).parent / "contrast.js").read_text()


class Program:
    """One tailwire process, ended with the `with`."""

    def __init__(self, *arguments, **variables):
        env = {"PATH": os.environ["PATH"]} | variables
        self.process = subprocess.Popen([BINARY, *arguments], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.url = next(word for word in self.process.stdout.readline().split() if word.startswith("http"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)


def get(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.load(answer)


class Agent:
    """Posts its whole history and runs the tools it is asked for."""

    def __init__(self, base, stream=False, **headers):
        self.base, self.headers, self.history = base, headers, []
        self.settings = {"model": "gpt-sim", "store": False, "stream": stream, "instructions": "Be brief. " * 300}

    def run(self, text):
        self.history.append({"role": "user", "content": text})
        while True:
            body = json.dumps(self.settings | {"input": self.history}).encode()
            headers = {"content-type": "application/json", "authorization": "Bearer sk-browser"} | self.headers
            request = urllib.request.Request(f"{self.base}/responses", body, headers)
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                text = answer.read().decode()
            if self.settings["stream"]:
                text = [line for line in text.split("\n") if line.startswith("data: ")][-1][6:]
            response = json.loads(text).get("response", json.loads(text))
            self.history += response["output"]
            calls = [item for item in response["output"] if item["type"] == "function_call"]
            if not calls:
                return
            for n, call in enumerate(calls):
                result = f"line {n}: " + "src/main.rs: 12 warnings\n" * (40 + 37 * len(self.history) % 120)
                self.history.append({"type": "function_call_output", "call_id": call["call_id"], "output": result})


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def text(browser, selector):
    return browser.evaluate(f"document.querySelector({selector!r}).innerText.trim()")


def check_figures(browser, admin):
    """What a person reads is what the listener says."""
    stats, turns = get(f"{admin}/stats"), get(f"{admin}/turns")["turns"]
    browser.until(f"turns.length === {len(turns)} && stats.bytes.wire === {stats['bytes']['wire']}", "all turns are heard of")
    browser.until("!queued", "it is drawn")
    assert text(browser, "#saved").replace("\n", "") == f"{stats['saved'] * 100:.1f}%", text(browser, "#saved")
    assert text(browser, "#state") == "live"
    rows = browser.evaluate("[...document.querySelectorAll('#turns tr')].map(row => [...row.cells].map(cell => cell.innerText))")
    assert len(rows) == min(60, len(turns)), len(rows)
    newest = turns[-1]
    items = "–" if newest["items"] is None else f"{newest['items_sent']}/{newest['items']}"
    assert (rows[0][1].strip(), rows[0][3]) == (newest["plan"], items), rows[0]
    assert browser.evaluate("document.querySelectorAll('#sockets tr').length") == len(stats["sockets"])
    listed = browser.evaluate("[...document.querySelectorAll('#reasons li')].map(item => [item.children[0].innerText, item.children[1].innerText])")
    assert dict(listed) == {name: str(count) for name, count in stats["reasons"].items()}, listed
    for plan, count in stats["turns"].items():
        said = browser.evaluate(f"[...document.querySelectorAll('#plan-list dt')].find(term => term.innerText.startsWith('{plan}')).nextElementSibling.innerText")
        assert said.split()[0] == str(count), (plan, said)


def check_roles(browser):
    """What a screen reader finds: landmarks, headings, tables with headers, words for what is drawn, and polite news."""
    nodes = [node for node in browser.call("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    named = lambda role: [node.get("name", {}).get("value", "") for node in nodes if node["role"].get("value") == role]
    for landmark in ["banner", "main", "contentinfo"]:
        assert len(named(landmark)) == 1, landmark
    regions = named("region")
    assert {"Sockets to the provider", "The last turns", "Why turns were not deltas"} <= set(regions), regions
    assert len(named("heading")) == 9 and all(named("heading")), named("heading")
    assert len(named("table")) == 2 and {"Plan", "Received", "Lanes"} <= set(named("columnheader")), named("columnheader")
    assert len(named("rowheader")) >= 2
    assert all(named("image")), "every drawing has words"
    assert len(named("status")) == 2
    live = browser.evaluate("[...document.querySelectorAll('[aria-live]')].map(element => element.getAttribute('aria-live'))")
    assert live == ["polite", "polite"], live
    assert browser.evaluate("document.documentElement.lang") == "en"


def check_keyboard(browser):
    """The way of the Tab key: the skip link, both tables (they scroll), the links below; each visibly focused."""
    browser.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    way = []
    for _ in range(7):
        browser.press("Tab", 9)
        way.append(browser.evaluate("""(() => {
            const focused = document.activeElement, style = getComputedStyle(focused);
            return [focused.className || focused.getAttribute("href"), style.outlineStyle, parseFloat(style.outlineWidth) >= 2];
        })()"""))
    assert [step[0] for step in way] == ["skip", "scroll", "scroll", "/stats", "/turns", "/metrics", "/ready"], way
    assert all(step[1:] == ["solid", True] for step in way), way


def check_looks(browser):
    """Nothing hangs over the edge, and every text has the contrast of WCAG AA, everywhere."""
    for width, height in [(360, 740), (768, 1024), (1280, 900)]:
        for dark in [False, True]:
            browser.looks(width, height, dark)
            over = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert over == 0, f"{width}: {over} px hang over"
            faint = browser.evaluate(CONTRAST)
            assert faint == [], f"{width}, dark: {dark}: {faint}"
    browser.looks(1280, 900, still=True)
    assert browser.evaluate("getComputedStyle(document.querySelector('main')).transitionDuration") == "0s"
    browser.looks(1280, 900)


def check_innocence(browser, admin):
    """It asked nobody else, broke no rule of its policy, and threw nothing."""
    for event in browser.events:
        told = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            url = told["request"]["url"]
            assert url.startswith((admin, "data:", "about:")), url
        # That a stream is lost when the proxy is gone is said on the console, too.
        lost = told.get("entry", {}).get("source") == "network"
        complaint = event.get("method") in ["Runtime.exceptionThrown", "Log.entryAdded"] and not lost
        assert not complaint, told


def take_pictures(browser):
    folder = ROOT / "docs" / "screenshots"
    folder.mkdir(exist_ok=True)
    for name, width, height, dark in [("light", 1280, 1580, False), ("dark", 1280, 1580, True), ("phone", 360, 1500, False)]:
        browser.looks(width, height, dark)
        browser.evaluate("scrollTo(0, 0), document.activeElement.blur(), new Promise(done => setTimeout(done, 700))")
        browser.screenshot(folder / f"{name}.png")
    browser.looks(1280, 900)


def work(base):
    """A day in small: agents that go on for long, one that streams, one that edits its past, one that goes plain."""
    Agent(base).run("Fix the build. [sim calls=16 text=300 reasoning=1]")
    Agent(base, stream=True).run("Write the tests. [sim calls=11 text=900]")
    forgetful = Agent(base)
    forgetful.run("Read the logs. [sim calls=3 text=80]")
    forgetful.history[0]["content"] = "Read all the logs. [sim calls=4 text=80]"
    forgetful.run("Go on. [sim calls=2 text=80]")
    Agent(base, **{"x-tailwire-mode": "http"}).run("Once around. [sim calls=1 text=80]")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--screenshots", action="store_true", help="write docs/screenshots anew")
    wanted = parser.parse_args()
    port = free_port()
    admin = f"http://127.0.0.1:{port}"
    with Program("sim", "--listen", "127.0.0.1:0", "--rtt", "30ms") as provider, Browser() as browser:
        proxy = lambda: Program("serve", "--listen", "127.0.0.1:0", "--admin", f"127.0.0.1:{port}", "--upstream", provider.url)
        with proxy() as serving:
            browser.looks(1280, 900)
            browser.call("Page.navigate", url=admin)
            browser.until("window.stats === undefined && typeof draw === 'function' && stats", "it hears how things stand")
            assert text(browser, "#no-turns").startswith("No turn yet"), "an empty page says what to do"
            check_looks(browser)
            work(serving.url)
            check_figures(browser, admin)
            check_roles(browser)
            check_keyboard(browser)
            check_looks(browser)
            if wanted.screenshots:
                take_pictures(browser)
            # One that loads now sees the same, without having heard the turns.
            browser.call("Page.reload")
            browser.until("typeof stats === 'object' && stats && !queued", "it is there again")
            check_figures(browser, admin)
        browser.until("document.querySelector('#state').dataset.is === 'lost'", "it says that the proxy is gone")
        assert text(browser, "#state").startswith("connection lost; trying again in"), text(browser, "#state")
        with proxy() as serving:
            browser.until("document.querySelector('#state').dataset.is === 'live'", "it finds the new one by itself")
            assert browser.evaluate("turns.length") == 0, "and what it shows is the new one's"
            Agent(serving.url).run("Hello. [sim text=20]")
            browser.until("document.querySelectorAll('#turns tr').length === 1", "and goes on")
            check_figures(browser, admin)
        check_innocence(browser, admin)
    print("the dashboard: figures, roles, keyboard, looks, loss and return: all as they should be")


if __name__ == "__main__":
    sys.exit(main())
