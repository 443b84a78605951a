"""The API over the fake engine: what operators see and change. Run by api_test.py."""
import os

from api_rig import CODE, Folder, M, SET_ID, Server, eventually, fails, grpc, health, test


@test
def the_model_describes_itself():
    with Server() as s:
        m = s.client().call("GetModel", M("GetModelRequest"))
        assert m.name == "fake-model" and m.family == "fake" and list(m.n_experts) == [4, 4] and m.base_set_id == SET_ID
        assert not m.has_classifier and not m.n_classes and m.n_ffn_experts == 2 and m.attention == "softmax"
        assert m.max_context == 4096 and list(m.eos_token_ids) == [256] and m.has_tokenizer and m.chat_template == "fake" and m.version


@test
def admin_shows_the_cluster():
    with Server() as s:
        admin = s.client().of("conclave.v1.Admin")
        cluster = admin.call("GetCluster", M("GetClusterRequest"))
        assert cluster.nodes[0].id == 'node "one"' and cluster.nodes[0].rows == 11 and cluster.ready and cluster.coordinators[0].controller
        experts = admin.call("ListExperts", M("ListExpertsRequest", layer=1))
        assert [(e.layer, e.expert_id) for e in experts.experts] == [(1, i) for i in range(4)] and experts.epoch == 3
        assert experts.experts[2].replicas[0].node_id == 'node "one"' and experts.experts[2].replicas[0].ready
        assert [e.kind for e in experts.experts] == [1, 1, 2, 4], "two FFNs, a constant and a zero expert"
        assert len(admin.call("ListExperts", M("ListExpertsRequest")).experts) == 8
        stats = admin.call("GetExpertStats", M("GetExpertStatsRequest"))
        assert stats.tokens == 7 and [e.rows for e in stats.experts] == [i * 10 for i in range(8)]
        assert [e.gate_mass for e in stats.experts] == [i * 2.5 for i in range(8)] and [e.rate for e in stats.experts] == [i / 2 for i in range(8)]
        assert all(e.in_default and not e.pack for e in stats.experts)
        assert [e.kind for e in stats.experts] == [1, 1, 2, 4] * 2 and (stats.attention_keys_seen, stats.attention_keys_skipped) == (12, 34)
        layer = stats.layers[1]
        assert len(stats.layers) == 2 and layer.layer == 1 and list(layer.rows_by_ffn_picks) == [3, 4, 5]
        assert (layer.ffn_picks, layer.constant_picks, layer.copy_picks, layer.zero_picks) == (90, 60, 0, 70)
        assert layer.bytes_not_sent == (60 + 70 + 3) * 8 * 4, "a result per pick that is no FFN, and the rows without an FFN"
        one = admin.call("GetExpertStats", M("GetExpertStatsRequest", layer=1))
        assert list(one.layers) == [layer] and len(one.experts) == 4
        fails(CODE.INVALID_ARGUMENT, lambda: admin.call("ListExperts", M("ListExpertsRequest", layer=2)), "layer")
        fails(CODE.INVALID_ARGUMENT, lambda: admin.call("GetExpertStats", M("GetExpertStatsRequest", layer=2)), "layer")
        fails(CODE.NOT_FOUND, lambda: admin.call("ListExperts", M("ListExpertsRequest", set_id="b")), "set_id")


@test
def the_policy_is_read_and_changed_part_by_part():
    with Server() as s:
        admin = s.client().of("conclave.v1.Admin")

        def ask(**fields):
            policy = admin.call("SetPolicy", M("SetPolicyRequest", **fields)).policy
            return policy.replication, policy.min_nodes

        assert ask() == (1, 1)
        assert ask(replication=2) == (2, 1)
        assert ask(min_nodes=3) == (2, 3)
        assert ask(replication=1, min_nodes=5) == (1, 5)
        policy = admin.call("GetCluster", M("GetClusterRequest")).policy
        assert (policy.replication, policy.min_nodes) == (1, 5)
        fails(CODE.INVALID_ARGUMENT, lambda: ask(replication=0), "replication")
        fails(CODE.INVALID_ARGUMENT, lambda: ask(replication=2, min_nodes=0), "min_nodes")
        fails(CODE.INVALID_ARGUMENT, lambda: ask(min_nodes=257), "min_nodes")
        assert ask() == (1, 5)


def change(admin, name, /, **fields):
    """The result of a change that succeeds."""
    told = list(admin.call(name, M(name + "Request", **fields)))
    assert told[-1].result.number and told[-1].phase == "done" and not any(t.result.number for t in told[:-1])
    return told[-1].result


def lists(of):
    return {l.layer: list(l.ids) for l in of}


def experts(**layers):
    return [M("ExpertList", layer=int(layer[1:]), ids=ids) for layer, ids in layers.items()]


def answer(client, text="ab", **fields):
    return client.call("Complete", M("GenerateRequest", text=text, sampling=M("Sampling", max_tokens=3, seed=1), **fields))


@test
def the_default_set_is_pruned_restored_and_rolled_back():
    with Server() as s:
        client = s.client()
        admin = client.of("conclave.v1.Admin")
        plan = change(admin, "PruneExperts", experts=experts(l0=[1], l1=[3, 0]), options=M("ChangeOptions", dry_run=True))
        assert plan.dry_run and plan.set_before == SET_ID and lists(plan.removed) == {0: [1], 1: [0, 3]} and not plan.added
        assert answer(client).set_id == SET_ID, "a dry run changes nothing"
        done = change(admin, "PruneExperts", experts=experts(l0=[1], l1=[3, 0]), options=M("ChangeOptions", who="ann", why="too\nslow"))
        assert (done.set_after, done.what, done.name) == (plan.set_after, "prune 3 experts", "") and done.number == 1
        assert answer(client).set_id == done.set_after
        assert list(client.call("GetModel", M("GetModelRequest")).n_experts) == [3, 2]
        assert [(e.layer, e.expert_id) for e in admin.call("ListExperts", M("ListExpertsRequest")).experts] == [(0, 0), (0, 2), (0, 3), (1, 1), (1, 2)]
        assert len(admin.call("ListExperts", M("ListExpertsRequest", set_id="base")).experts) == 8
        stats = admin.call("GetExpertStats", M("GetExpertStatsRequest")).experts
        assert [e.in_default for e in stats] == [True, False, True, True, False, True, True, False]
        assert answer(client, set=M("ExpertSet", id="base")).set_id == SET_ID and answer(client, set=M("ExpertSet", id=SET_ID)).set_id == SET_ID
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", experts=experts(l1=[1])), "layer 1 has 1 experts, at least 2")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", experts=experts(l0=[1])), "not in the set")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", experts=experts(l0=[9])), "layer 0 has no expert 9")
        assert lists(change(admin, "RestoreExperts", experts=experts(l1=[3])).added) == {1: [3]}
        assert change(admin, "RestoreExperts").set_after == SET_ID
        fails(CODE.ALREADY_EXISTS, lambda: change(admin, "RestoreExperts"), "nothing would change")
        change(admin, "Rollback")
        assert change(admin, "Rollback").set_after == done.set_after
        log = admin.call("GetSetLog", M("GetSetLogRequest")).entries
        assert [e.what for e in log] == ["prune 3 experts", "restore 1 experts", "restore all experts", "rollback", "rollback"]
        assert log[0].who == "ann" and log[0].why == "too slow" and log[1].who.startswith("ipv4:") and not any(e.undone for e in log)
        assert [e.number for e in admin.call("GetSetLog", M("GetSetLogRequest", limit=2)).entries] == [e.number for e in log[-2:]]


@test
def usage_says_what_can_go():
    with Server() as s:  # rows of the fake: 0, 10, 20, 30 in layer 0; 40 to 70 in layer 1; ids 2 and 3 are the coordinator's
        admin = s.client().of("conclave.v1.Admin")
        dry = M("ChangeOptions", dry_run=True)
        assert lists(change(admin, "PruneExperts", below=0.2, options=dry).removed) == {0: [0, 1], 1: [0]}
        assert lists(change(admin, "PruneExperts", below=0.2, keep_at_least=3, options=dry).removed) == {0: [0], 1: [0]}
        savings = change(admin, "PruneExperts", below=0.2, options=dry).savings
        assert [n.node_id for n in savings] == ['node "one"']
        assert lists(change(admin, "PruneExperts", below=0.2, over_s=3600, options=dry).removed)[0] == [0, 1]
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", below=0.2, over_s=3601), "the longest window that is kept is 3600 s")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", over_s=60, experts=experts(l0=[0])), "over_s")
        fails(CODE.NOT_FOUND, lambda: change(admin, "PruneExperts", below=1e-9, keep_at_least=4), "no expert that may go")
        fails(CODE.NOT_FOUND, lambda: change(admin, "PruneExperts", below=0.2, pack="german"), "german")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts"), "below: 0")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", below=1.5), "below: 1.5")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", below=0.5, experts=experts(l0=[0])), "below")


@test
def sets_have_names_and_requests_say_them():
    with Server() as s:
        client = s.client()
        admin = client.of("conclave.v1.Admin")
        few = change(admin, "DefineSet", name="few", experts=experts(l0=[0, 1]))
        assert few.name == "few" and not few.set_before and lists(few.added) == {0: [0, 1], 1: [0, 1, 2, 3]}
        assert answer(client).set_id == SET_ID and answer(client, set=M("ExpertSet", id="few")).set_id == few.set_after
        score = client.call("Score", M("ScoreRequest", text="ab", set=M("ExpertSet", id=few.set_after)))
        assert score.set_id == few.set_after
        sets = admin.call("ListSets", M("ListSetsRequest")).sets
        assert [(list(i.names), i.is_default, i.size) for i in sets] == [([], True, 8), (["few"], False, 6)]
        one = admin.call("ListSets", M("ListSetsRequest", set="few", experts=True)).sets[0]
        assert lists(one.experts) == {0: [0, 1], 1: [0, 1, 2, 3]}
        assert change(admin, "UseSet", set="few").set_after == few.set_after and answer(client).set_id == few.set_after
        diff = admin.call("DiffSets", M("DiffSetsRequest", a="base", b="default"))
        assert (diff.set_a, diff.set_b) == (SET_ID, few.set_after) and lists(diff.only_a) == {0: [2, 3]} and not diff.only_b
        gone = change(admin, "ForgetSet", name="few")
        assert gone.set_before == few.set_after and not gone.set_after and gone.name == "few"
        fails(CODE.NOT_FOUND, lambda: answer(client, set=M("ExpertSet", id="few")), "set.id")
        fails(CODE.NOT_FOUND, lambda: change(admin, "ForgetSet", name="few"), "few")
        fails(CODE.NOT_FOUND, lambda: change(admin, "UseSet", set="few"), "few")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "DefineSet", name="base"), "name")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "DefineSet"), "name")
        fails(CODE.NOT_FOUND, lambda: change(admin, "DefineSet", name="x", include=["german"]), "german")
        fails(CODE.NOT_FOUND, lambda: answer(client, set=M("ExpertSet", include=["german"])), "set.include")
        fails(CODE.NOT_FOUND, lambda: answer(client, set=M("ExpertSet", exclude=["german"])), "set.exclude")
        fails(CODE.INVALID_ARGUMENT, lambda: answer(client, set=M("ExpertSet", id="base", exclude=["german"])), "set")
        fails(CODE.INVALID_ARGUMENT, lambda: answer(client, set=M("ExpertSet", include=["x"] * 65)), "65 packs")
        fails(CODE.INVALID_ARGUMENT, lambda: answer(client, set=M("ExpertSet", exclude=["base"])), "layer 0 has 0 experts")
        fails(CODE.NOT_FOUND, lambda: admin.call("DiffSets", M("DiffSetsRequest", a="base", b="few")), "few")


@test
def a_set_lives_while_a_request_runs_with_it():
    with Server() as s:
        client = s.client()
        admin = client.of("conclave.v1.Admin")
        few = change(admin, "DefineSet", name="few", experts=experts(l0=[0, 1])).set_after
        running = client.call("Generate", M("GenerateRequest", text="!slow", set=M("ExpertSet", id="few"), sampling=M("Sampling", max_tokens=1000)))
        assert next(running).set_id == few
        change(admin, "ForgetSet", name="few")
        fails(CODE.NOT_FOUND, lambda: answer(client, set=M("ExpertSet", id="few")))
        choices = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3], [0, 1, 2], [1, 2, 3]]
        names = ["s%d" % i for i in range(63)]
        for at in range(0, 63, 9):  # changes wait for each other; at most 16
            calls = [admin.call("DefineSet", M("DefineSetRequest", name=n, experts=experts(l0=choices[int(n[1:]) // 8], l1=choices[int(n[1:]) % 8])))
                     for n in names[at:at + 9]]
            assert all(list(c)[-1].result.set_after for c in calls)
        fails(CODE.RESOURCE_EXHAUSTED, lambda: change(admin, "DefineSet", name="more"), "the limit is 64")
        change(admin, "UseSet", set="s0")
        fails(CODE.RESOURCE_EXHAUSTED, lambda: answer(client, set=M("ExpertSet", id="base")), "64 sets live")
        assert answer(client, set=M("ExpertSet", id=few)).set_id == few, "it lives, so that it can be asked for by its id"
        running.cancel()

        def is_free():
            try:
                return answer(client, set=M("ExpertSet", id="base")).set_id == SET_ID
            except grpc.RpcError:
                return False

        eventually(is_free, "the set of a request that has ended makes room")


@test
def changes_can_be_refused_whole():
    with Server(no_changes="not here") as s:
        admin = s.client().of("conclave.v1.Admin")
        fails(CODE.UNIMPLEMENTED, lambda: change(admin, "RestoreExperts"), "not here")
        assert len(admin.call("ListSets", M("ListSetsRequest")).sets) == 1
        assert not admin.call("ListPacks", M("ListPacksRequest")).packs
    with Server() as s:
        admin = s.client().of("conclave.v1.Admin")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "AddPack"), "pack")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "UpdatePack", pack="x"), "to")
        fails(CODE.NOT_FOUND, lambda: change(admin, "RemovePack", pack="german"), "german")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "Rollback", options=M("ChangeOptions", why="y" * 256)), "why")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "Rollback", options=M("ChangeOptions", timeout_ms=86400001)), "timeout_ms")
        fails(CODE.NOT_FOUND, lambda: change(admin, "Rollback"), "former")


@test
def a_token_that_is_bound_to_sets_has_no_others():
    with Folder() as folder:
        path = os.path.join(folder, "tokens")
        open(path, "w").write("master\nguest sets=few,later\nplain sets=base\n")
        with Server(token_file=path) as s:
            master, guest, plain = (s.client().with_token(t) for t in ("master", "guest", "plain"))
            admin = master.of("conclave.v1.Admin")
            few = change(admin, "DefineSet", name="few", experts=experts(l0=[0, 1])).set_after
            change(admin, "DefineSet", name="more", experts=experts(l0=[0, 1, 2]))
            assert answer(guest, set=M("ExpertSet", id="few")).set_id == few and answer(guest, set=M("ExpertSet", id=few)).set_id == few
            for denied in (None, M("ExpertSet"), M("ExpertSet", id="more"), M("ExpertSet", id="default"), M("ExpertSet", id=SET_ID),
                           M("ExpertSet", id="later"), M("ExpertSet", id="nobody"), M("ExpertSet", include=["base"]), M("ExpertSet", exclude=["x"])):
                fails(CODE.PERMISSION_DENIED, lambda: answer(guest, set=denied), "bound to other sets")
            fails(CODE.PERMISSION_DENIED, lambda: guest.call("Score", M("ScoreRequest", text="a")), "bound to other sets")
            assert answer(plain).set_id == SET_ID, "the default set is the base"
            change(admin, "UseSet", set="few")
            assert answer(guest).set_id == few, "now the default set is one of the guest's"
            fails(CODE.PERMISSION_DENIED, lambda: answer(plain), "bound to other sets")
            assert answer(plain, set=M("ExpertSet", id="base")).set_id == SET_ID
            for name, fields in (("ListSets", {}), ("GetCluster", {}), ("UseSet", {"set": "base"})):
                fails(CODE.PERMISSION_DENIED, lambda: guest.of("conclave.v1.Admin").call(name, M(name + "Request", **fields)), "bound to sets")
            assert guest.call("GetModel", M("GetModelRequest")).name == "fake-model"


@test
def admin_may_have_a_listener_of_its_own():
    with Server(services=2) as s:
        client = s.client()
        client.of("conclave.v1.Admin").call("GetCluster", M("GetClusterRequest"))
        fails(CODE.UNIMPLEMENTED, lambda: client.call("GetModel", M("GetModelRequest")))
        fails(CODE.NOT_FOUND, lambda: health(s)("Check", "conclave.v1.Inference"))
        s.tell("ready 0")
        assert health(s)("Check").status == 1
    with Server(services=1) as s:
        fails(CODE.UNIMPLEMENTED, lambda: s.client().of("conclave.v1.Admin").call("GetCluster", M("GetClusterRequest")))


@test
def watching_the_cluster_tells_every_change():
    with Server() as s:
        watch = s.client().of("conclave.v1.Admin").call("WatchCluster", M("GetClusterRequest"))
        assert next(watch).nodes[0].state == 2
        s.tell("node 3")
        assert next(watch).nodes[0].state == 3
        s.tell("ready 0")
        assert not next(watch).ready
        watch.cancel()
