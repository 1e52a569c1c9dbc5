"""docs/performance.md and the README's rows come from the committed results, byte for byte."""

import json
import subprocess
import sys

import pytest
import report

README = "# x\n<!-- speed:begin -->\nold\n<!-- speed:end -->\nrest\n"


def test_what_is_committed_is_what_the_results_give():
    files = report.written(report.RESULTS, report.README.read_text(), json.loads(report.REASONS.read_text()))
    stale = [path.name for path, text in files.items() if not path.exists() or path.read_text() != text]
    assert not stale, "run `make performance` and commit what it writes"
    left_over = {path.name for path in report.PLOTS.glob("*.svg")} - {path.name for path in files}
    assert not left_over, "plots that no result gives"


def test_another_process_writes_the_same_bytes():
    code = "import json, report; print(json.dumps({p.name: t for p, t in report.written(report.RESULTS, "
    code += "report.README.read_text(), json.loads(report.REASONS.read_text())).items()}))"
    command = [sys.executable, "-c", code]
    texts = [
        subprocess.run(command, cwd=report.HERE, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1] and len(texts[0]) > 1000


def results(tmp_path, ours, rival, reasons=None):
    row = {"case": "gates", "precision": "fp32", "reason": None, "goal": None, "limit_share": 0.5, "bound": "memory"}
    rows = [
        {**row, "contender": name, "ours": name == "unrain", "median_ms": ms, "low_ms": ms, "high_ms": ms, "rounds": 9}
        for name, ms in (("unrain", ours), ("eager", rival))
    ]
    rows.append({**row, "contender": "kornia", "ours": False, "median_ms": None, "reason": "not installed"})
    facts = {
        "cpu": "Test",
        "cores": 2,
        "threads": 2,
        "commit": "abc",
        "versions": {"python": "3.11"},
        "machine": "test",
    }
    limits = {"copy_bytes_per_second": 1e10, "operations_per_second": {"fp32": 1e11}}
    one = {"format": 1, "suite": "training", "device": "cpu", "facts": facts, "limits": limits, "rows": rows}
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "training.json").write_text(json.dumps(one))
    return report.written(tmp_path, README, reasons or {})


def test_a_win_and_what_was_not_timed_are_on_the_page(tmp_path):
    page = results(tmp_path, 2.0, 3.0)[report.PAGE]
    assert "| 1.50 |" in page and "kornia (gates): not installed" in page and "Nowhere in these tables" in page


def test_a_loss_needs_a_sentence(tmp_path):
    with pytest.raises(report.Unexplained, match=r"gates \| unrain"):
        results(tmp_path, 3.0, 2.0)


def test_a_loss_is_printed_with_its_sentence(tmp_path):
    page = results(tmp_path, 3.0, 2.0, {"gates | unrain": "Because of the moon."})[report.PAGE]
    assert "gates, unrain: eager 1.50x faster. Because of the moon." in page and "Nowhere" not in page


def test_only_the_rows_of_the_readme_change(tmp_path):
    text = results(tmp_path, 2.0, 3.0)[report.README]
    assert text.startswith("# x\n<!-- speed:begin -->\n") and text.endswith("<!-- speed:end -->\nrest\n")
    assert "old" not in text
