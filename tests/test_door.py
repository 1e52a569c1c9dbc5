"""`import unrain` is light: no torch, no optional package, and every promised name is there when asked for."""

import subprocess
import sys

import pytest

OPTIONAL = {
    "triton",
    "tensorrt",
    "tensorrt_rtx",
    "onnx",
    "onnxruntime",
    "openvino",
    "cupy",
    "av",
    "ray",
    "cv2",
    "scipy",
}
TORCH_FREE = (
    "unrain",
    "unrain.engine",
    "unrain.engine.models",
    "unrain.engine.images",
    "unrain.engine.info",
    "unrain.cli.main",
)


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


EVERY_COMMAND = """
import typer
from unrain.cli.main import app
group = typer.main.get_command(app)
for name in group.list_commands(None):
    group.get_command(None, name)
"""


@pytest.mark.parametrize("name", TORCH_FREE)
def test_import_without_torch(name):
    assert not modules_after(f"import {name}") & {"torch", "numpy", *OPTIONAL}


def test_names_are_listed_without_torch():
    assert "torch" not in modules_after("import unrain; assert 'srn' in unrain.models()")


def test_no_command_imports_torch_at_the_top_of_its_file():
    assert not modules_after(EVERY_COMMAND) & {"torch", *OPTIONAL}


def test_optional_packages_stay_out_of_a_plain_run():
    # torch itself loads triton where it is installed; everything else must wait until it is asked for.
    code = "import unrain, torch; unrain.build('stagewise')(torch.rand(1, 3, 8, 8), T=1)"
    assert not modules_after(code) & (OPTIONAL - {"triton"})


def test_nothing_needs_an_optional_package_to_be_installed():
    block = "import sys\n" + "\n".join(f"sys.modules[{name!r}] = None" for name in sorted(OPTIONAL))
    modules_after(f"{block}\nimport unrain; unrain.build('stagewise'); unrain.kernels; unrain.info()")


@pytest.mark.parametrize("name", ["__version__", "models", "build", "load", "info", "engine", "kernels", "export"])
def test_promised_names_are_there(name):
    import unrain

    assert getattr(unrain, name) is not None
    assert name in unrain.__all__ and name in dir(unrain)


def test_unknown_name_is_an_attribute_error():
    import unrain

    with pytest.raises(AttributeError, match="no attribute 'rain'"):
        unrain.rain  # noqa: B018
