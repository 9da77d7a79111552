"""What is asked, with the subject taken out: a small encoder of questions on word hashes.

It hears a text as the hashes of its words (`words`), so it works behind any tokenizer; the words of the subject are
replaced by one placeholder. Its vectors of "The capital of X is" and "Which city governs X?" are close, those of
"X was founded in" and "Is Rome the capital of X?" are not. All of it is tensor arithmetic without synchronisation.
"""

import zlib
from functools import cache
from importlib import resources

import torch
from einops import rearrange
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, normalize, scaled_dot_product_attention

NONE, PLACE, UNKNOWN, FIRST = 0, 1, 2, 3  # ids: no word, the subject, a word not in the vocabulary, the first word
NEAR = 32  # words back that are told apart by their distance
OUTPUT = 192


class QuestionEncoder(nn.Module):
    """Unit vectors of what a text asks, at each of its words.

    Attributes:
        words: int64 `[V]`, hashes of the known words in order.
        vectors: int8 `[V + 3, D]` and scales: float32 `[V + 3, 1]`, the words' vectors, after those of the three marks.
        background: float32 `[M, 192]`, unit vectors of what is usually asked: centres of thousands of relations.
        signature: tells an encoder from others; vectors of different ones cannot be compared.
    """

    words: Tensor
    vectors: Tensor
    scales: Tensor
    background: Tensor

    def __init__(self, words: int, width: int = 192, layers: int = 2, heads: int = 6, background: int = 0) -> None:
        super().__init__()
        self.signature = 0
        self.register_buffer("words", torch.zeros(words, dtype=torch.int64))
        self.register_buffer("vectors", torch.zeros(words + FIRST, width, dtype=torch.int8))
        self.register_buffer("scales", torch.ones(words + FIRST, 1))
        self.register_buffer("background", torch.zeros(background, OUTPUT))
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.weigh = nn.Linear(width, heads)
        self.out = nn.Linear(2 * width, OUTPUT)

    def ids(self, words: Tensor) -> Tensor:
        """Int64 of any shape: vocabulary ids of word hashes, where -1 stands for no word."""
        at = torch.searchsorted(self.words, words).clamp(max=len(self.words) - 1)
        known = self.words[at] == words
        return torch.where(words < 0, NONE, torch.where(known, at + FIRST, UNKNOWN))

    def look_up(self, ids: Tensor) -> Tensor:
        """Float32 `[N, S, D]`: the vectors of words."""
        return self.vectors[ids].float() * self.scales[ids]

    def usual(self, vectors: Tensor) -> Tensor:
        """The mean cosine of unit vectors `[..., 192]` to the nearest three of the background, float32 `[...]`."""
        return (vectors @ self.background.T).topk(3).values.mean(-1)

    def forward(self, ids: Tensor) -> Tensor:
        """Float32 `[N, S, 192]`: the unit vector of each text up to and including each position.

        Args:
            ids: int64 `[N, S]`; positions with id 0 are skipped and repeat the vector before them; before the first
                word it is zero.
        """
        real = ids > NONE
        order = real.long().cumsum(1)
        steps = torch.arange(ids.shape[1], device=ids.device)
        seen = (steps[:, None] >= steps) & real[:, None] | (steps[:, None] == steps)
        back = (order[:, :, None] - order[:, None]).clamp(0, NEAR - 1)
        states = self.look_up(ids)
        for layer in self.layers:
            states = layer(states, seen[:, None], back)
        states = layer_norm(states, states.shape[-1:])
        weights = torch.exp(3 * torch.tanh(self.weigh(states))) * real[..., None]
        parts = states.unflatten(-1, (weights.shape[-1], -1)) * weights[..., None]
        mean = parts.cumsum(1) / weights.cumsum(1).clamp(min=1e-6)[..., None]
        latest = torch.where(real, steps, 0).cummax(1).values
        last = states.gather(1, latest[..., None].expand_as(states))
        return normalize(self.out(torch.cat([mean.flatten(-2), last], dim=-1)), dim=-1) * (order > 0)[..., None]


class _Layer(nn.Module):
    """Causal attention that knows how many words back, then a step on each word."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.near = nn.Parameter(torch.zeros(heads, NEAR))
        self.mix = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.wide = nn.Linear(width, 2 * width)
        self.back = nn.Linear(2 * width, width)

    def forward(self, states: Tensor, seen: Tensor, back: Tensor) -> Tensor:
        """States after attention and step; `seen` bool `[N, 1, S, S]`, `back` int64 `[N, S, S]` words."""
        mixed = self.mix(layer_norm(states, states.shape[-1:]))
        query, key, value = rearrange(mixed, "n s (part head d) -> part n head s d", part=3, head=self.heads)
        bias = self.near[:, back].transpose(0, 1).masked_fill(~seen, float("-inf"))
        heard = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        states = states + self.join(rearrange(heard, "n head s d -> n s (head d)"))
        return states + self.back(gelu(self.wide(layer_norm(states, states.shape[-1:]))))


@cache
def question_encoder() -> QuestionEncoder:
    """The encoder that comes with the package, loaded at the first call; shared, so it must not be changed."""
    file = (resources.files("editmem.routing") / "data/question_encoder.safetensors").read_bytes()
    saved = load(file)
    layers = len({name.split(".")[1] for name in saved if name.startswith("layers.")})
    words, width = saved["vectors"].shape
    encoder = QuestionEncoder(words - FIRST, width, layers, saved["weigh.weight"].shape[0], len(saved["background"]))
    saved["background"] = normalize(saved["background"].float(), dim=1)
    encoder.load_state_dict(saved)
    encoder.signature = zlib.crc32(file)
    return encoder.requires_grad_(False).eval()
