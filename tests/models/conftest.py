"""What tests of several kinds of model share."""

import hashlib
import json

import pytest


@pytest.fixture(scope="session")
def forge():
    """(folder, change) -> change `model.json` of a model's folder, and make its checksum fit again, as a forger would."""

    def rewrite(folder, change):
        about = json.loads((folder / "model.json").read_text())
        about.pop("sha256")
        change(about)
        about["sha256"] = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        (folder / "model.json").write_text(json.dumps(about))

    return rewrite
