"""The page of `unrain demo`: in a real browser, and by requests that no page of ours would make."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

import unrain
from unrain.demo.show import pan, write_video
from unrain.engine.images import read_image, write_image
from unrain.page.jobs import WAITING
from unrain.page.server import Server
from unrain.page.wiping import BUNDLED, Wiper

MEGABYTE = 10**6
RIGHT, LEFT, HOME, END, PAGE_UP = "\ue014", "\ue012", "\ue011", "\ue010", "\ue00e"


@pytest.fixture(scope="module")
def weights(saved):
    """The quickest of the shipped networks, cut to two stages."""
    model = unrain.load("stagewise")
    model.stages = 2
    return saved(model)


@pytest.fixture(scope="module")
def server(weights):
    before = torch.get_num_threads()
    wiper = Wiper({"tiny": weights}, "cpu", 1, max_pixels=400_000, max_frames=6)
    server = Server(wiper, port=0, max_upload=50 * MEGABYTE)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.close(10)
    torch.set_num_threads(before)
    assert not server.folder.exists()


@pytest.fixture
def page(browser, server):
    """The page, freshly loaded, in the browser's first window."""
    browser.open(server.url)
    browser.wait("document.querySelectorAll('#precision option').length > 1")
    browser.run("document.querySelector('#backend').value = 'eager'")
    browser.run("document.querySelector('#precision').value = 'fp32'")
    return browser


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "street.png"
    write_image(path, read_image(BUNDLED)[:200, :320].copy())
    return path


DONE = "document.querySelector('#status').textContent.startsWith('Done')"


def upload(page, path) -> None:
    page.send("#file", str(path))


def cut(page) -> float:
    return float(page.run("return document.querySelector('#compare').style.getPropertyValue('--cut')").rstrip("%"))


def test_upload_and_result(page, picture, server, weights, tmp_path):
    upload(page, picture)
    page.wait(DONE)
    facts = page.text("#facts")
    assert "320 × 200" in facts and "ms a frame" in facts and "eager, fp32, on cpu" in facts and "OK" in facts
    assert page.run("return document.querySelector('#download').download") == "street-derained.png"
    result = page.run_async(
        """const done = arguments[0];
        createImageBitmap(document.querySelector('#after img')).then(bitmap => {
          const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), context = canvas.getContext('2d');
          context.drawImage(bitmap, 0, 0);
          done([...context.getImageData(0, 0, 320, 200).data]);
        })"""
    )
    shown = np.array(result, dtype=np.uint8).reshape(200, 320, 4)[:, :, :3]
    expected = unrain.Engine(weights, "eager", "fp32", "cpu", 1)(read_image(picture))
    assert np.array_equal(shown, expected)
    page.wait("fetch && document.querySelector('#busy').hidden")
    assert not list(server.folder.iterdir())  # fetched, so forgotten


def test_slider_by_keyboard_and_mouse(page, picture):
    upload(page, picture)
    page.wait(DONE)
    assert page.role_and_name("#cut") == ("slider", "Border between before and after")
    page.run("document.querySelector('#cut').focus()")
    page.press(RIGHT * 3)
    assert cut(page) == 53
    assert page.run("return document.querySelector('#cut').getAttribute('aria-valuetext')") == (
        "53 percent before, 47 percent after"
    )
    page.press(LEFT)
    assert cut(page) == 52
    page.press(PAGE_UP)
    assert cut(page) == 62
    page.press(HOME)
    assert cut(page) == 0
    page.press(END)
    assert cut(page) == 100
    page.drag("#compare", 0.9, 0.25)
    assert abs(cut(page) - 25) <= 1
    clip = page.run("return getComputedStyle(document.querySelector('#before')).clipPath")
    assert "75%" in clip or "calc(100% - 25%)" in clip


def test_everything_can_be_reached_and_is_named(page, picture):
    upload(page, picture)
    page.wait(DONE)
    names = page.run(
        """return [...document.querySelectorAll('input, select, button, a, progress')]
        .filter(e => e.offsetParent && !e.disabled).map(e => '#' + e.id)"""
    )
    assert {"#file", "#sample", "#model", "#backend", "#precision", "#longest", "#cut", "#download"} <= set(names)
    for css in names:
        role, name = page.role_and_name(css)
        assert name and role in ("button", "combobox", "slider", "link"), (css, role, name)
        page.run("document.querySelector(arguments[0]).focus({focusVisible: true})", css)
        assert page.run("return document.activeElement.matches(arguments[0])", css)
        outlined = "[document.activeElement, document.querySelector('#compare'), document.querySelector('#drop')]"
        assert page.run(
            f"return {outlined}.some(e => parseFloat(getComputedStyle(e).outlineWidth) >= 2 && "
            "getComputedStyle(e).outlineStyle === 'solid')"
        ), css
    assert page.role_and_name("#status")[0] == "status" and page.role_and_name("#error")[0] == "alert"


@pytest.mark.parametrize(
    "name, data, said",
    [
        ("text.jpg", b"Dear diary, it rained again today.\n" * 40, "neither a picture"),
        ("cut.png", None, "cannot be read as a picture"),
        ("empty.jpg", b"", "neither a picture"),
    ],
)
def test_a_file_that_is_no_picture_is_one_clear_line(page, server, picture, tmp_path, name, data, said):
    path = tmp_path / name
    path.write_bytes(picture.read_bytes()[:2000] if data is None else data)
    upload(page, path)
    line = page.wait("document.querySelector('#error').textContent")
    assert line.startswith(f"{name}: ") and said in line and "\n" not in line
    assert str(server.folder) not in line and "/" not in line and "Traceback" not in line
    page.wait("document.querySelector('#busy').hidden")
    upload(page, picture)  # and the next one works
    page.wait(DONE)
    assert page.text("#error") == ""


def test_a_file_of_more_than_50_mb_is_refused(page, server, tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(50 * MEGABYTE + 1)
    upload(page, path)
    line = page.wait("document.querySelector('#error').textContent")
    assert line == "large.png has 50 MB; this page takes at most 50 MB."
    # A page that does not look first gets the same from the server.
    code, text = page.run_async(
        """const done = arguments[0], body = new Blob([new Uint8Array(50000001)]);
        fetch('/jobs?model=tiny', {method: 'POST', body}).then(async a => done([a.status, (await a.json()).error]))"""
    )
    assert code == 413 and text == "the file is larger than 50 MB, the limit of this page"
    assert not list(server.folder.iterdir())


def test_two_pages_at_once(page, server, picture):
    first = page.window()
    second = page.new_window()
    try:
        page.open(server.url)
        page.wait("document.querySelectorAll('#precision option').length > 1")
        for window in (first, second):
            page.switch(window)
            page.run("document.querySelector('#backend').value = 'eager'")
            upload(page, picture)
        for window in (first, second):
            page.switch(window)
            page.wait(DONE)
    finally:
        page.switch(second)
        page._ask("DELETE", f"{page._session}/window")
        page.switch(first)


def test_a_clip(page, tmp_path):
    pytest.importorskip("av", reason="video needs PyAV")
    frames = [frame[:97, :161].copy() for frame in pan(read_image(BUNDLED))][:8]  # odd sides
    assert write_video(tmp_path / "pan.mp4", frames)
    upload(page, tmp_path / "pan.mp4")
    page.wait(DONE)
    facts = page.text("#facts")
    assert "160 × 96, 6 frames" in facts and "6 OK" in facts and "the first 6 of 8 frames" in facts
    page.wait("document.querySelector('#before video').readyState >= 2")
    page.click("#play")
    page.wait("document.querySelector('#before video').currentTime > 0.1")
    page.click("#play")
    page.wait("document.querySelector('#after video').paused && document.querySelector('#before video').paused")
    apart = "Math.abs(after.currentTime - before.currentTime)"
    page.wait(f"(([after, before]) => {apart} <= 0.06)(document.querySelectorAll('.compare video'))")
    assert page.run("return document.querySelector('#download').download") == "pan-derained.mp4"


def test_the_bundled_picture_and_again(page):
    page.click("#sample")
    page.wait(DONE)
    assert "640 × 427" in page.text("#facts")
    page.run("document.querySelector('#longest').value = '320'")
    page.click("#again")
    page.wait(
        "document.querySelector('#facts').textContent.includes('320 ×') && document.querySelector('#busy').hidden"
    )


def test_no_request_leaves_the_machine_and_the_page_obeys_its_policy(browser, server):
    """Runs last here: the browser's own record of every test before."""
    hosts = set()
    for entry in browser.log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
            url = urlsplit(message["params"].get("request", message["params"])["url"])
            if url.scheme not in ("blob", "data", "about", "chrome"):
                hosts.add((url.scheme, url.netloc))
    assert hosts == {("http", f"127.0.0.1:{server.server_port}")}
    complaints = [entry["message"] for entry in browser.log("browser")]
    assert not [line for line in complaints if "Content Security Policy" in line or "Uncaught" in line]


def ask(server, method: str, path: str, body=None, **headers) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


@pytest.mark.parametrize(
    "code, method, path, headers",
    [
        (421, "GET", "/", {"Host": "rebound.example:80"}),
        (421, "POST", "/jobs?model=tiny", {"Host": "127.0.0.1"}),
        (403, "POST", "/jobs?model=tiny", {"Origin": "https://example.org"}),
        (403, "POST", "/jobs?model=tiny", {"Origin": "null"}),
        (403, "GET", "/sample", {"Sec-Fetch-Site": "cross-site"}),
        (404, "GET", "/page.py", {}),
        (404, "GET", "/../server.py", {}),
        (404, "GET", "/jobs/../../../../etc/passwd", {}),
        (404, "GET", "/jobs/aaaaaaaaaaaaaaaaaaaaaa/before", {}),
        (404, "POST", "/", {}),
        (400, "POST", "/jobs?model=/etc/passwd", {}),
        (411, "POST", "/jobs?model=tiny", {"Transfer-Encoding": "chunked"}),
        (413, "POST", "/jobs?model=tiny", {"Content-Length": "50000001", "Connection": "close"}),
        (501, "PUT", "/jobs", {}),
    ],
)
def test_requests_that_are_refused(server, code, method, path, headers):
    if "Content-Length" in headers:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        connection.putrequest(method, path)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()  # before the first byte of the body
        status, text = answer.status, answer.read().decode()
        connection.close()
    else:
        body = iter([b"0"]) if "Transfer-Encoding" in headers else None
        status, text = ask(server, method, path, body, **headers)
    assert status == code and len(json.loads(text)["error"].splitlines()) == 1
    assert not list(server.folder.iterdir())


def test_answers_carry_the_policy(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("GET", "/")
    answer = connection.getresponse()
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    page = answer.read().decode()
    assert "style=" not in page and "onclick" not in page and "http:" not in page and "https:" not in page


def test_uploads_that_never_end_take_no_more_places_than_others(server):
    """Each may fill the disk up to the limit of one file, so they count from their first byte on."""
    head = b"POST /jobs?model=tiny&backend=eager HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 1000\r\n\r\nBM"
    begun = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(WAITING)]
    for each in begun:
        each.sendall(head % server.server_port)
    wait_for(lambda: len(list(server.folder.iterdir())) == WAITING)
    code, text = ask(server, "POST", "/jobs?model=tiny&backend=eager", b"BM")
    assert code == 503 and "too many files are waiting" in text
    for each in begun:
        each.close()
    wait_for(lambda: not list(server.folder.iterdir()))
    code, text = ask(server, "POST", "/jobs?model=tiny&backend=eager", b"BM")
    assert code == 202 and ask(server, "DELETE", f"/jobs/{json.loads(text)['id']}")[0] == 200


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_picture_of_too_many_pixels(server, tmp_path):
    Image.new("1", (1000, 500)).save(tmp_path / "bomb.png")
    code, text = ask(server, "POST", "/jobs?model=tiny&backend=eager", (tmp_path / "bomb.png").read_bytes())
    assert code == 202
    job = json.loads(text)["id"]
    while (state := json.loads(ask(server, "GET", f"/jobs/{job}")[1]))["state"] in ("waiting", "running"):
        pass
    assert state["state"] == "failed" and "500,000 pixels" in state["error"]
    assert ask(server, "GET", f"/jobs/{job}/after")[0] == 404
    assert ask(server, "DELETE", f"/jobs/{job}")[0] == 200
    assert not list(server.folder.iterdir())


def test_the_command_ends_with_ctrl_c_and_removes_its_folder(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    words = [sys.executable, "-m", "unrain.cli.main", "demo", "--port", "0"]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    line = run.stdout.readline()
    assert line.startswith("http://127.0.0.1:") and line.endswith("/ is ready; ctrl-C ends it\n")
    assert len(list(tmp_path.glob("unrain-demo-*"))) == 1
    port = urlsplit(line.split()[0]).port
    second = subprocess.run([*words[:-1], str(port)], capture_output=True, text=True)
    assert second.returncode == 1 and "--port 0 takes a free one" in second.stderr and second.stderr.count("\n") == 1
    run.send_signal(signal.SIGINT)
    assert run.wait(30) == 0 and run.stderr.read() == ""
    assert not list(tmp_path.glob("unrain-demo-*"))
