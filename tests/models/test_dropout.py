"""Our dropout is dropout: the right share of zeros, the same mean, the same mask for the same seed."""

import pytest
import torch
from torch import nn

from mamegpt.config import TrainConfig
from mamegpt.models.dropout import FastDropout, use_fast_dropout
from mamegpt.models.registry import ARCHITECTURES, build_model
from mamegpt.training.forward import SummedLoss


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_of_p_is_dropped_and_the_rest_made_up_for(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 1003)
    y = FastDropout(p).train()(x)
    n = x.numel()
    tolerance = 5 * (p * (1 - p) / n) ** 0.5 + 2**-16  # five standard deviations, and the rounding of p
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=tolerance)
    assert y[y > 0].unique().tolist() == [pytest.approx(1 / (1 - p), rel=2e-4)]
    assert (y == 0).float().mean(0).std().item() == pytest.approx((p * (1 - p) / 1000) ** 0.5, rel=0.2)  # no stripes
    assert (y == 0).float().mean(1).std().item() == pytest.approx((p * (1 - p) / 1003) ** 0.5, rel=0.2)


def test_the_gradient_goes_where_the_value_went() -> None:
    x = torch.randn(50, 7, requires_grad=True)
    y = FastDropout(0.3).train()(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_the_seed_of_torch_decides_the_mask() -> None:
    layer, x = FastDropout(0.5).train(), torch.ones(64, 64)
    torch.manual_seed(3)
    first, second = layer(x), layer(x)
    torch.manual_seed(3)
    again = layer(x)
    assert torch.equal(first, again) and not torch.equal(first, second)


def test_nothing_is_dropped_outside_training_or_at_rate_zero() -> None:
    x = torch.randn(9)
    assert FastDropout(0.5).eval()(x) is x
    assert FastDropout(0.0).train()(x) is x


def test_elsewhere_than_on_a_cpu_it_is_that_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FastDropout, "_dropped", None)
    assert FastDropout(0.5).train()(torch.ones(4, device="meta")).shape == (4,)


def test_half_precision_stays_half() -> None:
    assert FastDropout(0.1).train()(torch.ones(4, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_dropout_layer_is_replaced_and_the_state_dict_is_not(architecture: str) -> None:
    sizes = TrainConfig(context_length=8, emb_dim=16, n_layers=2, n_heads=2, drop_rate=0.2).model(50)
    model = build_model(architecture, sizes)
    keys, n_layers = list(model.state_dict()), sum(isinstance(m, nn.Dropout) for m in model.modules())
    SummedLoss(model, "fp32")
    assert not any(isinstance(m, nn.Dropout) for m in model.modules())
    replaced = [m for m in model.modules() if isinstance(m, FastDropout)]
    assert len(replaced) == n_layers > 0 and {m.p for m in replaced} == {0.2}
    assert list(model.state_dict()) == keys
    use_fast_dropout(model)  # nothing left to do
    assert [m for m in model.modules() if isinstance(m, FastDropout)] == replaced


def test_attention_weights_are_dropped_and_scaled() -> None:
    from mamegpt.models.custom_gpt.modeling_custom_gpt import Attention

    torch.manual_seed(0)
    sizes = TrainConfig(context_length=8, emb_dim=16, n_layers=1, n_heads=2, drop_rate=0.5).model(50)
    attention = Attention(sizes, 0)  # type: ignore[arg-type]
    x = torch.randn(1, 8, 16)
    expected = attention.eval()(x, None, None)
    attention.train()
    with torch.no_grad():
        dropped = torch.stack([attention(x, None, None) for _ in range(4000)])
    assert not torch.equal(dropped[0], dropped[1])
    torch.testing.assert_close(dropped.mean(0), expected.detach(), atol=0.03, rtol=0)
    changed = x.clone()
    changed[0, 5:] += 1  # what comes later is not looked at
    torch.manual_seed(1)
    before = attention(x, None, None)
    torch.manual_seed(1)
    torch.testing.assert_close(attention(changed, None, None)[0, :5], before[0, :5])
