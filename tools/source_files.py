"""What the checks share: the files to look at, and C++ code without comments and literals."""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
CPP_SUFFIXES = {".h", ".cc"}


def project_files(root=ROOT):
    """Paths of all files that git tracks or would track; of all files where there is no git."""
    if (root / ".git").exists():
        # safe.directory: in a container the checkout may belong to another user.
        names = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others",
             "--exclude-standard"],
            cwd=root, check=True, capture_output=True, text=True).stdout.split("\0")
        found = {root / name for name in names if name}
    else:
        found = {path for path in root.rglob("*")
                 if path.relative_to(root).parts[0] not in {"build", ".venv"}
                 and "__pycache__" not in path.parts}
    return sorted(path for path in found if path.is_file())


# Alternatives in order: what comes first in the text wins.
_NOT_CODE = re.compile(
    r"""//[^\n]*
      | /\*.*?\*/
      | R"(?P<mark>[^(\s]*)\(.*?\)(?P=mark)"
      | "(?:\\.|[^"\\\n])*"
      | (?<![0-9A-Za-z_])'(?:\\.|[^'\\\n])+'
    """, re.DOTALL | re.VERBOSE)


def code_only(text):
    """`text` with comments and literals blanked out; line numbers stay."""
    def blank(match):
        return '""' * match.group().startswith(('"', "R")) + "\n" * match.group().count("\n")
    return _NOT_CODE.sub(blank, text)
