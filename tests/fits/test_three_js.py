"""An animated rig in three.js, in headless Chromium: its skin is ours at every moment, and the pictures move.

Needs `chromium` and `npm install --global three`; skipped elsewhere.
"""

import base64
import functools
import html
import http.server
import io
import json
import pathlib
import re
import shutil
import subprocess
import threading

import numpy as np
import PIL.Image
import pytest

from dal_jax.body.formats import load
from dal_jax.fits import rig as rigs, rig_files
from tests.fits.test_rig import EXACT, POSITION, TIMES_S, moving, ours

PAGE = """<!doctype html><script type="importmap">
{"imports": {"three": "/three/build/three.module.js", "three/addons/": "/three/examples/jsm/"}}</script>
<script type="module">
import * as THREE from 'three';
import {GLTFLoader} from 'three/addons/loaders/GLTFLoader.js';
const result = document.createElement('pre'), vertex = new THREE.Vector3();
try {
  const file = await new GLTFLoader().loadAsync('/walk.glb'), frames = [];
  const renderer = new THREE.WebGLRenderer({preserveDrawingBuffer: true}), scene = new THREE.Scene();
  renderer.setSize(200, 200);
  scene.add(file.scene, new THREE.HemisphereLight(0xffffff, 0x888888, 2));
  const camera = new THREE.PerspectiveCamera(40, 1, 0.1, 100), mixer = new THREE.AnimationMixer(file.scene);
  mixer.clipAction(file.animations[0]).play();
  for (const time of TIMES) {
    mixer.setTime(time);
    scene.updateMatrixWorld(true);
    const mesh = file.scene.getObjectByProperty('isSkinnedMesh', true), vertices = [];
    mesh.skeleton.update();
    for (let k = 0; k < mesh.geometry.attributes.position.count; k++)
      vertices.push(mesh.getVertexPosition(k, vertex).applyMatrix4(mesh.matrixWorld).toArray());
    renderer.render(scene, camera);
    frames.push({vertices, index: Array.from(mesh.geometry.index.array), picture: renderer.domElement.toDataURL()});
  }
  result.textContent = JSON.stringify(frames);
} catch (error) { result.textContent = 'error: ' + error; }
document.body.append(result);
</script><body></body>"""


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def site(tmp_path):
    """Serve a folder in which three.js lies; return (folder, address)."""
    npm, chromium = shutil.which("npm"), _chromium()
    root = subprocess.run([npm, "root", "--global"], capture_output=True, text=True).stdout.strip() if npm else ""
    three = pathlib.Path(root) / "three"
    if chromium is None or not root or not three.is_dir():
        pytest.skip("chromium, or npm install --global three, is missing")
    (tmp_path / "three").symlink_to(three)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_three_js_plays_our_animation(site):
    folder, address = site
    body = load.load_body()
    rig_files.animation(body, moving(), TIMES_S, folder / "walk.glb", POSITION)
    times = TIMES_S.astype(np.float32).astype(float) - [0, 0, 1e-9]  # at its very end an animation begins anew
    (folder / "index.html").write_text(PAGE.replace("TIMES", json.dumps(times.tolist())))
    command = [
        str(_chromium()), "--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        "--disable-dev-shm-usage", f"--user-data-dir={folder}/profile", "--virtual-time-budget=30000", "--dump-dom",
        f"{address}/index.html",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    text = html.unescape(re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)[1])
    assert not text.startswith("error"), text
    frames, (_, vertices) = json.loads(text), ours(body, moving())
    pictures = []
    for frame, expected in zip(frames, vertices, strict=True):
        faces = np.array(frame["index"]).reshape(-1, 3)
        np.testing.assert_allclose(np.array(frame["vertices"])[faces], expected[body.faces], atol=EXACT)
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(frame["picture"].partition(",")[2])))
        pictures.append(np.asarray(picture.convert("L"), np.float32))
    for picture, place in zip(pictures, POSITION @ rigs.VIEWER_FROM_CAMERA, strict=True):
        x, y = 100 + 100 / np.tan(np.radians(20)) * place[:2] / -place[2] * (1, -1)
        assert picture.max() > 100 and picture[round(y), round(x)] > 50, "the pelvis is in the picture, and lit"
        assert picture[0, 0] == 0, "and the corner is empty"
    assert np.mean(np.abs(pictures[1] - pictures[0])) > 1 and np.mean(np.abs(pictures[2] - pictures[1])) > 1
