"""A Triton repository of vLLM models, served as it stands, by vLLM itself."""

from pathlib import Path

import pytest

from tests.engines.environments import DEMO_FOLDER, STATE, interpreter
from tests.repository.importing.stores import triton_model
from tests.serving import serve

pytestmark = pytest.mark.timeout(600)


def test_a_triton_repository_of_vllm_models_answers(tmp_path: Path) -> None:
    assert interpreter("vllm").exists()
    arguments = {
        "model": str(DEMO_FOLDER),
        "disable_log_requests": True,
        "max_model_len": 512,
        "max_num_seqs": 4,
    }
    triton_model(tmp_path, "orca", arguments)
    with serve(tmp_path, STATE) as served:
        answer = served.client.chat.completions.create(
            model="orca",
            messages=[{"role": "user", "content": "What is a version?"}],
            max_tokens=12,
            temperature=0,
        )
        assert answer.choices[0].message.content == "A version is a folder with a number for a name inside"
