"""What programs that are linked with libunrain rely on is what interface.txt says: symbols, sizes, offsets, numbers.

After a change that is meant, `python tests/library/test_interface.py` writes it anew; where a program that was linked
before would no longer run, UNRAIN_ABI of csrc/CMakeLists.txt goes up with it.
"""

import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from c_library import ROOT, STRICT, run

HEADER = ROOT / "csrc" / "include" / "unrain.h"
LISTED = Path(__file__).with_name("interface.txt")


def listing() -> str:
    """By the C compiler, of every type and function that the header declares."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    lines: list[tuple[str, str]] = []
    for body, name in re.findall(r"typedef enum \{(.*?)\} (\w+);", text, re.S):
        lines.append((f"{name} of %d bytes", f"(int)sizeof({name})"))
        lines += [(f"    {each} %d", each) for each in re.findall(r"\w+", body)]
    for body, name in re.findall(r"typedef struct \{(.*?)\} (\w+);", text, re.S):
        lines.append((f"{name} of %d bytes", f"(int)sizeof({name})"))
        for field in re.findall(r"(\w+)(?:\[\d+\])? *[,;]", body):
            size = f"(int)sizeof((({name} *)0)->{field})"
            lines.append((f"    {field} at %d of %d bytes", f"(int)offsetof({name}, {field}), {size}"))
    printed = "".join(f'    printf("{line}\\n", {arguments});\n' for line, arguments in lines)
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "listing.c"), Path(folder, "listing")
        source.write_text(f"#include <stdio.h>\n#include <unrain.h>\nint main(void) {{\n{printed}    return 0;\n}}\n")
        run("cc", *STRICT, f"-I{HEADER.parent}", source, "-o", program)
        types = run(program).stdout
    functions = [" ".join(each.split()) for each in re.findall(r"^UNRAIN_API (.*?;)", text, re.M | re.S)]
    return types + "".join(f"{each}\n" for each in functions)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler on this machine")
def test_the_header_is_what_programs_were_compiled_with():
    assert listing() == LISTED.read_text()


def test_the_library_has_the_symbols_that_programs_were_linked_to(prefix):
    library = next(prefix.glob("**/libunrain.so"))
    wanted = {f"{name}@@UNRAIN_0" for name in re.findall(r"(\w+)\(", LISTED.read_text())}
    found = {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).stdout.splitlines()}
    assert found - {"UNRAIN_0"} == wanted
    assert "SONAME" in (told := run("readelf", "-d", library).stdout) and "[libunrain.so.0]" in told


if __name__ == "__main__":
    LISTED.write_text(listing())
    sys.stdout.write(listing())
