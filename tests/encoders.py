"""Memory encoders that nothing was learned by, given out for trained: for what does not depend on what is said."""

import editmem
from editmem.methods.comem.training import parts_of, save

SMALL = {"rank": 2, "depth": 2, "queries": 2}


def comem(folder, model, tokenizer):
    """The settings of a "comem" memory for a model, with an encoder in the folder."""
    with editmem.wrap(model, {"method": "comem", **SMALL}, tokenizer=tokenizer) as editor:
        encoder = parts_of(editor)[1].encoder
        encoder.trained.fill_(True)
        for up in encoder.adapter.up:
            up.data.fill_(0.01)
        save(editor, folder)
    return {"method": "comem", "encoder": str(folder), **SMALL}
