import subprocess
import sys

import pytest

from sdk_runtimes import cpu
from sdk_runtimes.backends import BACKENDS, open_raw
from sdk_runtimes.choosing import ORDER, known_devices
from sdk_runtimes.devices import devices
from sdk_runtimes.errors import UnknownChoiceError


def test_every_known_unit_is_listed_and_the_usable_ones_come_first() -> None:
    found = devices()
    assert set(known_devices()) <= {device.id for device in found}
    usable = [device.usable for device in found]
    assert usable == sorted(usable, reverse=True)
    by_id = {device.id: device for device in found}
    for here in ("onnxruntime:cpu", "openvino:cpu"):
        assert by_id[here].usable
        assert by_id[here].kind == "cpu"
        assert by_id[here].name


def test_what_is_not_usable_says_why() -> None:
    assert all(device.note for device in devices() if not device.usable)


def test_ids_name_their_backend_and_kind() -> None:
    for device in devices():
        assert device.id.partition(":")[0] == device.backend
        assert BACKENDS[device.backend].units[device.id.split(":")[1]] == device.kind


def test_the_stated_order_holds_only_what_exists() -> None:
    known = known_devices()
    for device, target in ORDER:
        assert device in known
        assert target in BACKENDS[device.partition(":")[0]].targets


def test_an_unknown_backend_lists_the_known(tmp_path: object) -> None:
    with pytest.raises(UnknownChoiceError, match="'openvino', 'onnxruntime'"):
        open_raw(None, tmp_path, "tflite:cpu")  # type: ignore[arg-type]  # refused before either is looked at


def test_naming_devices_imports_no_engine() -> None:
    code = (
        "import sys, sdk_runtimes.loading, sdk_runtimes.devices, sdk_runtimes.verifying\n"
        "from sdk_runtimes.choosing import known_devices; known_devices()\n"
        "engines = {'torch', 'onnx', 'onnxruntime', 'openvino', 'coremltools', 'tensorrt'}\n"
        "assert not engines & set(sys.modules), engines & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_brand_of_the_processor() -> None:
    assert cpu.brand("processor\t: 0\nmodel name\t: ACME 9000\nmodel name\t: other\n") == "ACME 9000"
    assert cpu.brand("CPU implementer : 0x41\n") == ""
    assert cpu.cpu_name()
