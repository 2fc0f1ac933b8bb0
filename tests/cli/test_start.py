"""What a command does not load."""

import os
import subprocess
import sys
from pathlib import Path


def test_pyarrow_finds_no_pandas_in_a_command(tmp_path: Path) -> None:
    """A package of that name lies in the path: to import it would write a file."""
    (tmp_path / "pandas").mkdir()
    mark = tmp_path / "imported"
    (tmp_path / "pandas" / "__init__.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    for command in (["verify", tmp_path / "absent"], ["show", tmp_path / "absent.parquet"]):
        done = subprocess.run(
            [sys.executable, "-m", "tumorbatch", *command],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 66, done.stderr
        assert not mark.exists()
