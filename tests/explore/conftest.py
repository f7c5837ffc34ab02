"""The page in a real browser: servers of one and two detectors, and a headless Chromium."""

import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from helpers.detectors import save_coordinates, save_detector
from helpers.paths import ROOT

# Notes whom the server asks for anything, other than this machine, and lets it not.
GUARD = """
import os, socket

def guard(function, host):
    def guarded(*arguments, **options):
        name = host(*arguments)
        if name not in (None, '', '127.0.0.1', '::1', 'localhost', '0.0.0.0'):
            with open(os.environ['ASKED'], 'a') as file:
                file.write(f'{name}\\n')
            raise OSError(f'{name} was asked')
        return function(*arguments, **options)
    return guarded

def host_of(_, address):
    return address[0] if isinstance(address, tuple) else None

socket.socket.connect = guard(socket.socket.connect, host_of)
socket.socket.connect_ex = guard(socket.socket.connect_ex, host_of)
socket.getaddrinfo = guard(socket.getaddrinfo, lambda host, *_: host)
"""
# A proxy that answers nobody: whatever this machine asks itself must not go there.
PROXY = {f'{name}_proxy': 'http://127.0.0.1:9' for name in ('http', 'https', 'all')}


@pytest.fixture(scope='module')  # no longer: processes that other tests fork would keep its pipes
def chromium():
    """A headless Chromium."""
    names = ('chromium', 'chromium-browser', 'google-chrome')
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip('no Chromium is installed: apt-get install chromium')
    playwright = pytest.importorskip('playwright.sync_api', reason='pip install playwright')
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(scope='module', params=[1, 2], ids=['one model', 'two models'])
def served(request, tmp_path_factory):
    """What the server shows: models by title, images; and the file of whom it asked."""
    folder = tmp_path_factory.mktemp('explore')
    detectors = {
        name: save_detector(folder / name, operator)
        for name, operator in (('lesa', dict(type='LESA')), ('conv', None))[: request.param]
    }
    (folder / 'images').mkdir()
    images = [
        str(save_coordinates(folder / 'images' / name, *size))
        for name, size in (('a.png', (96, 64)), ('b.png', (120, 160)))
    ]
    return SimpleNamespace(
        folder=folder, detectors=detectors, images=images, asked=folder / 'asked.txt'
    )


@pytest.fixture(scope='module')
def url(served, tmp_path_factory):
    """Address of a running ``tools/explore.py``, on the port that it has found."""
    pytest.importorskip('starlette', reason='pip install starlette uvicorn')
    site = tmp_path_factory.mktemp('site')
    (site / 'sitecustomize.py').write_text(GUARD, encoding='utf-8')
    models = [
        argument for pair in served.detectors.values() for argument in ('--models', *map(str, pair))
    ]
    command = ('tools/explore.py', str(served.folder / 'images'), *models, '--device', 'cpu')
    path = os.pathsep.join((str(site), str(ROOT), os.environ.get('PYTHONPATH', '')))
    proxies = {**PROXY, **{name.upper(): value for name, value in PROXY.items()}}
    with subprocess.Popen(
        [sys.executable, '-u', '-W', 'ignore', *command],
        cwd=ROOT,
        env={**os.environ, **proxies, 'PYTHONPATH': path, 'ASKED': str(served.asked)},
        stdout=subprocess.PIPE,
        stderr=(served.folder / 'log.txt').open('w', encoding='utf-8'),
        encoding='utf-8',
    ) as server:
        said = next((line for line in server.stdout if line.startswith('Open ')), '')
        if not said:
            pytest.fail((served.folder / 'log.txt').read_text(encoding='utf-8')[-3000:])
        yield re.search(r'http://[\d.:]+', said)[0]
        server.terminate()


@pytest.fixture
def visit(chromium, url):
    """Opens the page as another visitor; what its browser asks for is in ``asked_for``."""
    contexts = []

    def open_page(width=1366, height=768, **options):
        context = chromium.new_context(viewport=dict(width=width, height=height), **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.asked_for, page.errors = [], []
        page.on('request', lambda request: page.asked_for.append(request.url))
        page.on('pageerror', lambda error: page.errors.append(str(error)))
        # The policy's refusals among them.
        page.on('console', lambda said: said.type == 'error' and page.errors.append(said.text))
        page.goto(url)
        page.wait_for_selector('.thumb')
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert not page.errors, page.errors
        context.close()
