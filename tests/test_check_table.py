"""Printed recalls against all counts there are."""

import json
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from builders import run_app, write_config
from hypothesis import given
from hypothesis import strategies as st

from vtr.errors import ConfigError, DatasetError
from vtr.evaluate.check_table import TEST_SIZES, check_csv, check_number, fitting_sizes


def run(*arguments: str, cwd: Path | None = None) -> tuple[int, str, str]:
    result = run_app("check-table", *arguments, cwd=cwd, code=None)
    return result.exit_code, result.stdout, result.stderr


@given(st.integers(1, 400), st.integers(0, 2), st.integers(0, 10_000))
def test_against_rounding_every_count(num_queries: int, decimals: int, units: int) -> None:
    step = Decimal(10) ** -decimals
    printed = (Decimal(units) / 100).quantize(step, ROUND_HALF_UP)
    fits = [
        count
        for count in range(num_queries + 1)
        for recall in [Decimal(100 * count) / num_queries]
        if printed in {recall.quantize(step, how) for how in (ROUND_HALF_UP, ROUND_HALF_EVEN)}
        or abs(recall - printed) == step / 2
    ]
    verdict = check_number(str(printed), num_queries)
    assert list(verdict.counts) == fits
    if not verdict.telling:
        assert verdict.possible


@given(st.integers(1, 100_000), st.data(), st.integers(0, 4))
def test_a_true_recall_always_passes(num_queries: int, data: st.DataObject, decimals: int) -> None:
    count = data.draw(st.integers(0, num_queries))
    verdict = check_number(f"{100 * count / num_queries:.{decimals}f}", num_queries)
    assert count in verdict.counts


def test_numbers_on_the_command_line() -> None:
    code, out, err = run("--n", "1000", "44.5", "71.4", "81.6")
    assert (code, out.splitlines()) == (
        0,
        ["44.5 ok: 445 of 1,000", "71.4 ok: 714 of 1,000", "81.6 ok: 816 of 1,000"],
    )
    assert "3 of 3 numbers could not have failed" in err
    code, out, err = run("--n", "670", "46.2", "46.3", "100")
    assert code == 3
    assert out.splitlines() == [
        "46.2 CANNOT BE: no count of 670 queries rounds to it (the nearest recalls are",
        "  46.1194 and 46.2687)",
        "46.3 ok: 310 of 670",
        "100 ok: 667 to 670 of 670",
    ]
    assert "a mean over several runs" in err


def test_sizes_that_fit() -> None:
    code, out, _ = run("46.2", "46.3")
    assert code == 0
    assert "N =    670  MSVD videos: no: 46.2 cannot be" in out
    assert "N =  1,000  MSR-VTT 1k-A or 1k-B, LSMDC: fits (every number would)" in out
    assert "MSR-VTT full captions: fits (every number would)" in out
    assert run("46.20001")[0] == 3
    assert set(fitting_sizes(["1"])) == set(TEST_SIZES)


def test_json() -> None:
    code, out, _ = run("--json", "--n", "10", "44.5")
    facts = {"place": "", "printed": "44.5", "n": 10, "possible": False, "counts": []}
    assert code == 3
    assert json.loads(out) == [facts | {"nearest": [40.0, 50.0], "telling": True}]
    assert json.loads(run("--json", "50")[1])["MSVD videos"][0]["counts"] == [332, 338]


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "paper.csv"
    path.write_bytes(
        "\ufeffmethod,N,t2v/R@1, R5 ,MedR\r\nours,670,46.3,76.1%,2.0\r\n"
        'theirs,"59,800",46.25,-,2\r\nnone,,44.55,,2\r\n'.encode()
    )
    verdicts = check_csv(path, 1000)
    assert [(v.place, v.num_queries, v.possible) for v in verdicts] == [
        ("row 1, t2v/R@1", 670, True),
        ("row 1, R5", 670, True),
        ("row 2, t2v/R@1", 59_800, True),
        ("row 3, t2v/R@1", 1000, False),
    ]
    code, out, _ = run(str(path), "--n", "1000")
    assert code == 3
    assert "row 3, t2v/R@1: 44.55 CANNOT BE" in out
    with pytest.raises(ConfigError, match="row 3 has no N; add a column N or give --n"):
        check_csv(path, None)


def test_bad_input(tmp_path: Path) -> None:
    for printed in ("", "abc", "-1", "100.1", "4e1", "1_0", "٤٤"):
        with pytest.raises(ConfigError, match="is no percentage"):
            check_number(printed, 10)
    for size in (0, 10**9 + 1, 10**400):
        with pytest.raises(ConfigError, match=f"N is {size!s:.30}; .* at most 1,000,000,000"):
            check_number("1", size)
    path = tmp_path / "paper.csv"
    with pytest.raises(DatasetError, match="cannot read"):
        check_csv(path, 10)
    path.write_text("")
    with pytest.raises(DatasetError, match=r"no recall column; its header is \[\]"):
        check_csv(path, 10)
    path.write_text("rank,MedR\n1,2\n")
    with pytest.raises(DatasetError, match="expected names such as R@1"):
        check_csv(path, 10)
    path.write_text("R@1,n\n1,many\n")
    with pytest.raises(ConfigError, match="row 1: N is 'many'"):
        check_csv(path, 10)
    path.write_text(f"R@1,n\n1,{'9' * 5000}\n")
    with pytest.raises(ConfigError, match=r"row 1: N is '999.* expected a whole number"):
        check_csv(path, 10)
    path.write_text(f"R@1,n\n1,5\n1,{'x' * 200_000}\n")
    with pytest.raises(DatasetError, match="after line 2: not CSV"):
        check_csv(path, 10)


def test_the_size_may_stand_in_a_file(tmp_path: Path) -> None:
    write_config(tmp_path, **{"check-table": {"n": 1000}})
    assert run("44.5", cwd=tmp_path)[1] == "44.5 ok: 445 of 1,000\n"
    assert run("44.5", "--n", "200", cwd=tmp_path)[1] == "44.5 ok: 89 of 200\n"
