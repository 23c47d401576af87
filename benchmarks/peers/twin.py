"""The pixel decoder of benchmarks/measuring.py in plain PyTorch: same layers, masks, parameters, likelihood.

`compare.py` starts it, in an environment with `requirements.txt` alone:

    python benchmarks/peers/twin.py weights.npz BATCH_SIZE SAMPLES ROWS

It takes the weights that `ours.py` wrote, prints how far its outputs are from ours, and then, for each line
"step", "forward" or "sample" on standard input, does that once and prints the seconds. "sample" is the
naive sampler, one forward pass per element, of the first ROWS rows of SAMPLES images.
"""

import json
import math
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MIXTURES, LEVELS = 10, 256


class MaskedConv(nn.Module):
    """A convolution that sees only what comes earlier in raster order, and with `center` its own place."""

    def __init__(self, inputs, outputs, kernel_size, center):
        super().__init__()
        height, self.width = kernel_size
        self.taps = self.width // 2 + center
        self.padding = (self.width // 2, self.width // 2, height - 1, 0)
        self.above = nn.Parameter(torch.empty(outputs, inputs, height - 1, self.width))
        self.row = nn.Parameter(torch.empty(outputs, inputs, 1, self.taps))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        kernel = torch.cat([self.above, F.pad(self.row, (0, self.width - self.taps))], dim=2)
        return F.conv2d(F.pad(x, self.padding), kernel, self.bias)


class GatedBlock(nn.Module):
    def __init__(self, width, kernel_size, condition_width):
        super().__init__()
        self.conv = MaskedConv(width, 2 * width, kernel_size, center=True)
        self.merge = nn.Conv2d(width, width, 1)
        self.from_condition = nn.Conv2d(condition_width, 2 * width, 1, bias=False)

    def forward(self, x, condition):
        a, b = (self.conv(x) + self.from_condition(condition)).chunk(2, dim=1)
        return x + self.merge(torch.tanh(a) * torch.sigmoid(b))


class ResidualBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 3, padding=1)
        self.pointwise = nn.Conv2d(width, width, 1)

    def forward(self, x):
        return x + self.pointwise(F.silu(self.spatial(F.silu(x))))


class PixelCNN(nn.Module):
    """Images `(B, 3, H, W)`, ints, and codes `(B, h, w)` to the head's outputs `(B, 100, H, W)`."""

    def __init__(self, width, blocks, kernel_size, codes, upsampling, condition_width, condition_blocks):
        super().__init__()
        first = (kernel_size[0] + 1, kernel_size[1] + 2)
        self.first = MaskedConv(3, width, first, center=False)
        self.blocks = nn.ModuleList(GatedBlock(width, kernel_size, condition_width) for _ in range(blocks))
        self.hidden = nn.Conv2d(width, width, 1)
        self.last = nn.Conv2d(width, 10 * MIXTURES, 1)
        self.embed_codes = nn.Embedding(codes, condition_width)
        self.read_codes = nn.Sequential(*(ResidualBlock(condition_width) for _ in range(condition_blocks)))
        self.upsample = nn.ConvTranspose2d(condition_width, condition_width, upsampling, upsampling)
        self.condition_skip = nn.Conv2d(condition_width, width, 1, bias=False)

    def forward(self, images, codes):
        embedded = self.embed_codes(codes).movedim(-1, 1).contiguous(memory_format=torch.channels_last)
        condition = F.silu(self.upsample(self.read_codes(embedded)))
        hidden = self.first(scale(images))
        for block in self.blocks:
            hidden = block(hidden, condition)
        hidden = hidden + self.condition_skip(condition)
        return self.last(F.silu(self.hidden(F.silu(hidden))))


def scale(images):
    return images.float() * (2.0 / (LEVELS - 1)) - 1.0


def predictions(images):
    """The head's fixed causal prediction of each pixel."""
    padded = F.pad(scale(images), (1, 0, 1, 0))
    west, north, corner = padded[:, :, 1:, :-1], padded[:, :, :-1, 1:], padded[:, :, :-1, :-1]
    return (0.75 * west + 0.75 * north - 0.5 * corner).clip(-1.0, 1.0)


def split(outputs):
    """Logits, means, log-scales and coefficients, lists of `(B, M, H, W)`."""
    groups = outputs.split(MIXTURES, dim=1)
    return groups[0], groups[1:4], groups[4:7], groups[7:]


def log_prob(outputs, images):
    """The discretized mixture of logistics, channels in order, `(B, H, W)` nats."""
    logits, means, log_scales, coefficients = split(outputs)
    predicted, half = predictions(images), 1.0 / (LEVELS - 1)
    total, residuals = F.log_softmax(logits, dim=1), []
    for c in range(3):
        value = images[:, c : c + 1]
        mean = predicted[:, c : c + 1] + means[c]
        for earlier in range(c):
            mean = mean + coefficients[c * (c - 1) // 2 + earlier] * residuals[earlier]
        inverse = torch.exp(-log_scales[c].clip(-7.0, 7.0))
        lower = torch.where(value == 0, 1e9, half)
        upper = torch.where(value == LEVELS - 1, 1e9, half)
        centered = scale(value) - mean
        total = (
            total + F.logsigmoid((upper + centered) * inverse) + F.logsigmoid((lower - centered) * inverse)
        )
        total = total + torch.log(-torch.expm1(-(lower + upper) * inverse))
        residuals.append(scale(value) - predicted[:, c : c + 1])
    return torch.logsumexp(total, dim=1)


def draw(outputs, predicted):
    """Pixels `(B, 3)` of one position, from its outputs `(B, 100)` and predictions `(B, 3)`."""
    logits, means, log_scales, coefficients = split(outputs)
    chosen = torch.distributions.Categorical(logits=logits).sample()[:, None]

    def of(group):
        return group.gather(1, chosen)[:, 0]

    values, residuals = [], []
    for c in range(3):
        mean = predicted[:, c] + of(means[c])
        for earlier in range(c):
            mean = mean + of(coefficients[c * (c - 1) // 2 + earlier]) * residuals[earlier]
        noise = torch.rand_like(mean).clip(1e-6, 1 - 1e-6)
        value = mean + torch.exp(of(log_scales[c]).clip(-7.0, 7.0)) * torch.logit(noise)
        values.append(((value + 1.0) * (LEVELS - 1) / 2).round().clip(0, LEVELS - 1))
        residuals.append(scale(values[-1]) - predicted[:, c])
    return torch.stack(values, dim=1).to(torch.int64)


def load(model, arrays):
    """Copies our weights, by name, into the twin; every parameter of it."""
    state = {name.removeprefix("weights/"): torch.from_numpy(arrays[name]) for name in arrays if "/" in name}
    model.load_state_dict(state, strict=True)


def make(arrays):
    sizes = json.loads(str(arrays["sizes"]))
    model = PixelCNN(**sizes)
    load(model, arrays)
    return model.to(memory_format=torch.channels_last)


def training_step(model, images, codes):
    parameters = list(model.parameters())
    averages = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.Adam(parameters, 1e-6)

    def step():
        optimizer.zero_grad()
        loss = -log_prob(model(images, codes), images).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 0.01)
        return loss.item()

    return step


@torch.no_grad()
def sample_naively(model, codes, rows):
    side = codes.shape[1] * model.upsample.stride[0]
    images = torch.zeros(len(codes), 3, side, side, dtype=torch.int64)
    for row in range(rows):
        for column in range(side):
            outputs = model(images, codes)[:, :, row, column]
            images[:, :, row, column] = draw(outputs, predictions(images)[:, :, row, column])
    return images


def main(path, batch_size, samples, rows):
    arrays = np.load(path)
    model = make(arrays)
    images = torch.from_numpy(arrays["images"]).movedim(-1, 1).to(torch.int64)
    codes = torch.from_numpy(arrays["codes"]).to(torch.int64)
    with torch.no_grad():
        outputs = model(images, codes)
        nats = log_prob(outputs, images).numpy()
    report = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "outputs differ by": float(np.abs(outputs.movedim(1, -1).numpy() - arrays["outputs"]).max()),
        "nats differ by": float(np.abs(nats - arrays["nats"]).max()),
    }
    print(json.dumps(report), flush=True)

    def many(x, count):
        return x.repeat(math.ceil(count / len(x)), *(1,) * (x.dim() - 1))[:count]

    images, codes_of_batch = many(images, batch_size), many(codes, batch_size)
    step = training_step(make(arrays), images, codes_of_batch)

    @torch.no_grad()
    def forward():
        return model(images, codes_of_batch)[0, 0, 0, 0].item()

    work = {"step": step, "forward": forward}
    work["sample"] = lambda: sample_naively(model, many(codes, samples), rows)
    for line in sys.stdin:
        start = time.perf_counter()
        work[line.strip()]()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
