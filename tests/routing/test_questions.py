"""The question encoder: its interface, and what its vectors keep apart."""

import pytest
import torch

from editmem.routing.question_encoder import FIRST, NONE, PLACE, UNKNOWN, QuestionEncoder, question_encoder
from editmem.text.word_hash import BASE, PRIME, fold


@pytest.fixture(scope="module")
def encoder():
    return question_encoder()


def ids(encoder, *texts):
    """Ids of texts with X for the subject, padded on the right."""
    rows = []
    for text in texts:
        hashes = [sum((ord(c) + 1) * pow(BASE, i, PRIME) for i, c in enumerate(fold(w))) % PRIME for w in text.split()]
        row = encoder.ids(torch.tensor(hashes))
        rows.append(torch.where(torch.tensor([w == "X" for w in text.split()]), PLACE, row))
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def vectors(encoder, *texts):
    return encoder(ids(encoder, *texts))[:, -1]


def test_words_have_ids_of_their_own_and_strangers_share_one(encoder):
    known, stranger = ids(encoder, "the capital xqzzvw kkqpw")[0].view(2, 2)
    assert (known >= FIRST).all()
    assert known[0] != known[1]
    assert (stranger == UNKNOWN).all()
    assert encoder.ids(torch.tensor([[-1]])).item() == NONE


def test_every_position_has_the_vector_of_the_text_so_far(encoder):
    whole = ids(encoder, "What is the capital of X")
    rows = encoder(whole)
    for end in range(1, whole.shape[1] + 1):
        torch.testing.assert_close(encoder(whole[:, :end])[:, -1], rows[:, end - 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(rows.shape[:2]))


def test_padding_and_skipped_positions_change_nothing(encoder):
    plain = ids(encoder, "What is the capital of X")
    spread = torch.zeros(1, 20, dtype=torch.int64)
    at = [2, 3, 7, 8, 12, 15]
    spread[0, at] = plain[0]
    rows = encoder(spread)[0]
    assert (rows[:2] == 0).all()
    torch.testing.assert_close(rows[at], encoder(plain)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(rows[4], rows[3])
    torch.testing.assert_close(rows[19], rows[15])


def test_rows_do_not_hear_each_other(encoder):
    both = ids(encoder, "What is the capital of X", "X was founded in")
    torch.testing.assert_close(encoder(both)[1], encoder(both[1:])[0], atol=1e-5, rtol=0)


def test_no_words_at_all_is_no_direction():
    empty = QuestionEncoder(words=3, width=24, layers=1)
    assert (empty(torch.zeros(2, 4, dtype=torch.int64)) == 0).all()


@pytest.mark.parametrize(
    ("edit", "same", "other"),
    [
        ("The capital of X is", "What is the capital city of X", "Who is the mayor of the capital of X"),
        ("The capital of X is", "could you tell me the capital of X", "Is Rome the capital of X"),
        ("The capital of X is", "Name the capital of X", "What is not the capital of X"),
        ("X was written by", "Who is the author of X", "When was X written"),
        ("X was written by", "Who wrote X", "While I read X we"),
    ],
)
def test_the_same_question_is_nearer_than_a_look_alike(encoder, edit, same, other):
    first, near, far = vectors(encoder, edit, same, other)
    assert first @ near > first @ far + 0.1


def test_the_background_is_of_unit_vectors(encoder):
    assert encoder.background.shape[1] == 192
    torch.testing.assert_close(encoder.background.norm(dim=1), torch.ones(len(encoder.background)))


def test_the_encoder_is_loaded_once():
    assert question_encoder() is question_encoder()
