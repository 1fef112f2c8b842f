from benchmarks.workload import distinct, shared_prefix


def test_distinct_prompts_share_no_prefix_even_across_seeds():
    prompts = [
        request.prompt
        for seed in range(20)
        for request in distinct(8, prompt_words=4, max_tokens=8, seed=seed)
    ]
    assert len({prompt.split()[0] for prompt in prompts}) > 150
    assert len({tuple(prompt.split()[:2]) for prompt in prompts}) == len(prompts)


def test_a_seed_gives_the_same_work_again():
    assert distinct(4, prompt_words=4, max_tokens=8, seed=1) == distinct(
        4, prompt_words=4, max_tokens=8, seed=1
    )


def test_every_seed_asks_for_the_same_number_of_tokens():
    sums = {
        sum(request.max_tokens for request in distinct(9, prompt_words=1, max_tokens=64, seed=seed))
        for seed in range(5)
    }
    assert sums == {9 * 64}


def test_lengths_are_spread_around_what_is_asked():
    lengths = [request.max_tokens for request in distinct(5, prompt_words=1, max_tokens=64, seed=0)]
    assert sorted(lengths) == [51, 58, 64, 70, 77]
    even = distinct(5, prompt_words=1, max_tokens=64, spread=0, seed=0)
    assert {request.max_tokens for request in even} == {64}


def test_a_shared_prefix_is_shared_within_a_seed_only():
    ours, theirs = (
        [
            request.prompt.split()
            for request in shared_prefix(3, prefix_words=10, own_words=2, max_tokens=4, seed=s)
        ]
        for s in (1, 2)
    )
    assert all(prompt[:10] == ours[0][:10] for prompt in ours)
    assert len({tuple(prompt[10:]) for prompt in ours}) == 3
    assert ours[0][:2] != theirs[0][:2]
