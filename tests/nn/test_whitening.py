"""Exact 1-D k-means against every possible partition, and the whitening loss against its equations."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unrain.engine.nn.whitening import BackgroundWhiteningLoss, covariance, kmeans_1d


def within(values, labels, weights):
    """The weighted sum of squares about the cluster means."""
    total = 0.0
    for label in np.unique(labels):
        v, w = values[labels == label], weights[labels == label]
        total += (w * (v - np.average(v, weights=w)) ** 2).sum()
    return total


def best_partition(values, clusters, weights):
    """The least of `within` over every way to cut the sorted values."""
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    cuts = itertools.combinations(range(1, len(values)), clusters - 1)
    return min(within(values, np.searchsorted(cut, np.arange(len(values)), side="right"), weights) for cut in cuts)


@pytest.mark.parametrize("clusters", [1, 2, 3, 4, 6])
def test_kmeans_finds_the_best_partition(clusters):
    rng = np.random.default_rng(clusters)
    for trial in range(30):
        count = int(rng.integers(clusters, 11))
        # Skewed, tied and tiny values in turn.
        values = [rng.random(count) ** 3, rng.integers(0, 7, count) * 1.0, 1 + rng.random(count) * 1e-6][trial % 3]
        weights = rng.integers(1, 4, count) * 1.0
        labels = kmeans_1d(values, clusters, weights)
        best = best_partition(values, clusters, weights)
        assert within(values, labels, weights) <= best + 1e-9 * within(values, np.zeros(count), weights)


def test_kmeans_labels_rise_with_the_values():
    values = np.random.default_rng(0).random(200)
    labels = kmeans_1d(values, 7)
    assert (np.diff(labels[np.argsort(values)]) >= 0).all()
    assert set(labels) == set(range(7))


def test_kmeans_weights_count_repetitions():
    values, weights = np.array([0.0, 0.1, 0.4, 1.0, 1.2]), np.array([3, 1, 1, 2, 4])
    repeated = np.repeat(values, weights)
    labels = kmeans_1d(values, 3, weights)
    assert (np.repeat(labels, weights) == kmeans_1d(repeated, 3)).all()


def test_kmeans_with_fewer_values_than_clusters():
    assert kmeans_1d(np.array([2.0, 1.0, 2.0]), 4).tolist() == [1, 0, 1]
    assert kmeans_1d(np.zeros(5), 4).tolist() == [0] * 5


def test_kmeans_separates_what_is_separate():
    rng = np.random.default_rng(3)
    centres = np.array([0.0, 1.0, 5.0, 30.0])
    truth = rng.integers(0, 4, 5000)
    assert (kmeans_1d(centres[truth] + rng.normal(0, 0.05, 5000), 4) == truth).all()


def queries(batch=2, channels=6, size=8, dtype=torch.float64):
    return [F.instance_norm(torch.randn(batch, channels, size, size, dtype=dtype)) for _ in range(2)]


def test_covariance_is_torchs():
    query = queries()[0]
    for image, found in zip(query, covariance(query), strict=True):
        assert torch.allclose(found, torch.cov(image.flatten(1)) + 1e-5 * torch.eye(6, dtype=torch.float64))


@pytest.mark.parametrize(("clusters", "lowest"), [(4, 2), (4, 1), (4, 4), (50, 1)])
def test_loss_is_its_equations(clusters, lowest):
    query1, query2 = queries()
    s1, s2 = covariance(query1), covariance(query2)
    mean = (s1 + s2) / 2
    variance = ((s1 - mean) ** 2 + (s2 - mean) ** 2) / 2
    # The full matrices of the batch in one list, as the authors' code clusters them.
    labels = kmeans_1d(variance.numpy().ravel(), clusters).reshape(variance.shape)
    total = count = 0.0
    for b, i, j in np.ndindex(*labels.shape):
        if i <= j and labels[b, i, j] < lowest:
            total += abs(s1[b, i, j].item()) + abs(s2[b, i, j].item())
            count += 1
    assert BackgroundWhiteningLoss(clusters, lowest)(query1, query2).item() == pytest.approx(total / count, rel=1e-12)


def test_default_is_the_papers_choice():
    loss = BackgroundWhiteningLoss()
    assert (loss.clusters, loss.lowest) == (4, 2)


def test_only_what_both_views_share_is_masked():
    """Channels 0 and 1 agree in both views; channels 2 and 3 agree in one view and oppose each other in the other."""
    background, rain = (torch.randn(1, 1, 16, 16, dtype=torch.float64) for _ in range(2))
    view1 = F.instance_norm(torch.cat([background, background, rain, rain], 1))
    view2 = F.instance_norm(torch.cat([background, background, rain, -rain], 1))
    mask = BackgroundWhiteningLoss(2, 1).mask(covariance(view1), covariance(view2))[0]
    assert mask[0, 1] == 1 and mask[2, 3] == 0
    assert (mask.diagonal() == 1).all() and (mask.tril(-1) == 0).all()


def test_the_diagonal_adds_no_gradient():
    query1, query2 = queries(channels=1)
    raw = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    BackgroundWhiteningLoss()(F.instance_norm(raw), query2).backward()
    assert raw.grad.abs().max() < 1e-6
    assert BackgroundWhiteningLoss()(query1, query2).item() == pytest.approx(2 * 64 / 63, rel=1e-3)


def test_descending_whitens_the_shared_covariance():
    base = torch.randn(2, 8, 12, 12)
    mixing = torch.randn(8, 8) * 0.5 + torch.eye(8)
    views = [torch.einsum("ij,bjhw->bihw", mixing, base) + 0.05 * torch.randn(2, 8, 12, 12) for _ in range(2)]
    turn = torch.eye(8).requires_grad_()
    optimiser = torch.optim.Adam([turn], lr=0.05)
    losses = []
    for _ in range(60):
        turned = [F.instance_norm(torch.einsum("ij,bjhw->bihw", turn, view)) for view in views]
        loss = BackgroundWhiteningLoss()(*turned)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_equal_views_mask_everything():
    query = queries()[0]
    mask = BackgroundWhiteningLoss().mask(covariance(query), covariance(query))
    assert torch.equal(mask, torch.ones_like(mask).triu())


def test_not_a_number_reaches_the_loss():
    query1, query2 = queries()
    query1[0, 0, 0, 0] = torch.nan
    assert BackgroundWhiteningLoss()(query1, query2).isnan()


def test_half_precision_is_computed_in_float32():
    query1, query2 = queries(dtype=torch.float32)
    expected = BackgroundWhiteningLoss()(query1.half().float(), query2.half().float())
    loss = BackgroundWhiteningLoss()(query1.half(), query2.half())
    assert loss.dtype == torch.float32 and torch.equal(loss, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(BackgroundWhiteningLoss()(query1, query2), BackgroundWhiteningLoss()(query1, query2).float())


def test_gradcheck():
    query1, query2 = (query.requires_grad_() for query in queries(batch=1, channels=3, size=4))
    assert torch.autograd.gradcheck(BackgroundWhiteningLoss(), (query1, query2))


@pytest.mark.parametrize(("clusters", "lowest"), [(4, 0), (4, 5), (0, 0)])
def test_impossible_clusters_are_refused(clusters, lowest):
    with pytest.raises(ValueError, match="lowest"):
        BackgroundWhiteningLoss(clusters, lowest)


def test_queries_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        BackgroundWhiteningLoss()(torch.zeros(1, 4, 8, 8), torch.zeros(2, 4, 8, 8))
