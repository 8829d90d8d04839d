"""Tests of the Helm chart with the real helm: lint, rendering over a matrix of values, snapshots, refusals by the schema,
and every manifest against the API schemas of Kubernetes and the operators' CRDs. UPDATE_SNAPSHOTS=1 rewrites the
snapshots."""

import copy
import itertools
import json
import os
import pathlib
import re
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml

HERE = pathlib.Path(__file__).parent
REPOSITORY = HERE.parent.parent
CHART = REPOSITORY / "helm" / "peerpanda-sso"
HELM, PROGRAM = os.environ["HELM"], os.environ["PROGRAM"]
CRDS = [pathlib.Path(folder) for folder in os.environ["CRDS"].split(":")]
KUBERNETES = ["1.35", "1.36", "1.37"]
BUNDLES = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))


def bundle(name):
    return yaml.safe_load((HERE / "values" / f"{name}.yaml").read_text())


class Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it, where a single = is a string."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


def helm(*arguments, values=None):
    command = [HELM, *arguments] + (["--values", "-"] if values is not None else [])
    text = None if values is None else yaml.safe_dump(values)
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def render(values):
    done = helm("template", "rel", str(CHART), "--namespace", "sso", "--kube-version", KUBERNETES[0], values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifests(values):
    return [manifest for manifest in yaml.safe_load_all(render(values)) if manifest]


def of_kind(found, kind):
    return [manifest for manifest in found if manifest["kind"] == kind]


def merged(base, change):
    result = copy.deepcopy(base)
    for name, value in change.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], value) if both else value
    return result


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


@pytest.fixture(scope="session")
def settings():
    """The settings that the program lists: variable -> default."""
    done = subprocess.run([PROGRAM, "settings", "--output", "json"], capture_output=True, text=True, check=True)
    return {setting["variable"]: setting["default"] for setting in json.loads(done.stdout)}


@pytest.fixture(scope="session")
def operator_kinds():
    kinds = {}
    for folder in CRDS:
        for path in sorted(folder.glob("*.yaml")):
            for crd in yaml.load_all(path.read_text(), Loader):
                if crd and crd.get("kind") == "CustomResourceDefinition":
                    for version in crd["spec"]["versions"]:
                        name = f'{crd["spec"]["group"]}/{version["name"]}', crd["spec"]["names"]["kind"]
                        kinds[name] = version["schema"]["openAPIV3Schema"]
    return kinds


def strict(schema):
    """The schema as the API server applies it with fieldValidation=Strict: unknown fields are refused."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: strict(value) for name, value in schema.items()}
    closed = isinstance(result.get("properties"), dict) and "additionalProperties" not in result
    if closed and not result.get("x-kubernetes-preserve-unknown-fields") and result.get("type") == "object":
        result["additionalProperties"] = False
    if isinstance(result.get("pattern"), str) and "(?i)" in result["pattern"]:
        # Go permits the flag anywhere in a pattern, Python only at its start.
        result["pattern"] = "(?i)" + result["pattern"].replace("(?i)", "")
    if result.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    return result


def check(manifest, operator_kinds):
    own = operator_kinds.get((manifest["apiVersion"], manifest["kind"]))
    if own:
        schema = strict(own)
        schema["properties"].update(apiVersion={}, kind={}, metadata={})
        jsonschema.validate(manifest, schema)
    else:
        for version in KUBERNETES:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_lint():
    for name in BUNDLES:
        done = helm("lint", "--strict", "--kube-version", KUBERNETES[0], str(CHART), values=bundle(name))
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", BUNDLES)
def test_snapshot(name):
    path, rendered = HERE / "snapshots" / f"{name}.yaml", render(bundle(name))
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(rendered)
    assert rendered == path.read_text(), f"{path} differs: look, then UPDATE_SNAPSHOTS=1 tests/chart/run"


SWITCHES = [
    ("tls", [{}, {"certManager": {"enabled": False}, "settings": {"allowInsecureListen": True}, "files": {"tlsClientCaFile": {"existingConfigMap": ""}}},
             {"certManager": {"enabled": False}, "files": {"tlsCertFile": {"existingSecret": "t"}, "tlsKeyFile": {"existingSecret": "t"}}}]),
    ("scale", [{}, {"autoscaling": {"enabled": False}, "replicaCount": 5}]),
    ("policy", [{}, {"networkPolicy": {"enabled": False}}]),
    ("budget", [{}, {"podDisruptionBudget": {"maxUnavailable": "25%"}}]),
    ("watch", [{}, {"serviceMonitor": {"enabled": False}, "prometheusRule": {"enabled": False}}]),
    ("account", [{}, {"serviceAccount": {"create": False}}]),
]


def test_every_manifest_of_the_matrix_is_valid(operator_kinds):
    seen = set()
    variants = [bundle(name) for name in BUNDLES]
    for changes in itertools.product(*(choices for _, choices in SWITCHES)):
        values = bundle("production")
        for change in changes:
            values = merged(values, change)
        variants.append(values)
    checked = set()
    for values in variants:
        for manifest in manifests(values):
            seen.add(manifest["kind"])
            text = json.dumps(manifest, sort_keys=True)
            if text not in checked:
                checked.add(text)
                check(manifest, operator_kinds)
    assert seen == {
        "Deployment", "Service", "ServiceAccount", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy",
        "ServiceMonitor", "PrometheusRule", "Certificate", "PersistentVolumeClaim", "Pod",
    }


def test_the_validators_refuse_what_is_wrong(operator_kinds):
    found = manifests(bundle("production"))
    for kind, path, value in [
        ("Deployment", ["spec", "template", "spec", "containers", 0, "imagePolicy"], "Always"),
        ("Deployment", ["spec", "selector"], "all"),
        ("ServiceMonitor", ["spec", "endpoints", 0, "prot"], "metrics"),
        ("PrometheusRule", ["spec", "groups", 0, "rules", 0, "severity"], "high"),
        ("Certificate", ["spec", "dnsNames"], "one"),
    ]:
        manifest = copy.deepcopy(of_kind(found, kind)[0])
        place = manifest
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            check(manifest, operator_kinds)


REFUSED = {
    "no public URL": {"settings": {"publicUrl": ""}},
    "a public URL with a path": {"settings": {"publicUrl": "https://a.example/app"}},
    "a public URL over http": {"settings": {"publicUrl": "http://a.example"}},
    "an unknown setting": {"settings": {"publicURL": "https://a.example"}},
    "an unknown value": {"replicas": 2},
    "a secret in values": {"secrets": {"databaseUrl": {"value": "postgres://u:p@h/d"}}},
    "a setting past the chart": {"extraEnv": [{"name": "SSO_DATABASE_URL", "value": "x"}]},
    "SQLite with several replicas": {"secrets": {"databaseUrl": {"existingSecret": ""}}, "autoscaling": {"enabled": False}, "replicaCount": 2},
    "SQLite with an autoscaler": {"secrets": {"databaseUrl": {"existingSecret": ""}}, "replicaCount": 1},
    "memory with several replicas": {"secrets": {"redisUrl": {"existingSecret": ""}}, "autoscaling": {"enabled": False}, "replicaCount": 2},
    "memory with an autoscaler": {"secrets": {"redisUrl": {"existingSecret": ""}}, "replicaCount": 1},
    "shared stores without a key": {"secrets": {"encryptionKeys": {"existingSecret": ""}}},
    "no TLS": {"certManager": {"enabled": False}},
    "half a certificate": {"certManager": {"enabled": False}, "files": {"tlsCertFile": {"existingSecret": "t"}}},
    "two certificates": {"files": {"tlsCertFile": {"existingSecret": "t"}, "tlsKeyFile": {"existingSecret": "t"}}},
    "no callers": {"files": {"callersFile": {"existingSecret": ""}}},
    "callers' certificates without TLS": {"certManager": {"enabled": False}, "settings": {"allowInsecureListen": "true"}},
    "an issuer without a name": {"certManager": {"issuerRef": {"name": ""}}},
    "a file from two places": {"files": {"redisCaFile": {"existingConfigMap": "c"}}},
    "a duration without a unit": {"settings": {"stateTtl": "15"}},
    "a rate without a period": {"settings": {"beginRate": "100"}},
    "a log format": {"settings": {"logFormat": "xml"}},
    "a network": {"settings": {"allowedProviderCidrs": "intranet"}},
    "a port": {"service": {"admin": {"port": 70000}}},
    "an open admin listener": {"networkPolicy": {"adminFrom": []}},
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_schema_refuses(what):
    done = helm("template", "rel", str(CHART), "--kube-version", KUBERNETES[0], values=merged(bundle("production"), REFUSED[what]))
    assert done.returncode != 0, what
    assert "values don't meet the specifications of the schema" in done.stderr, done.stderr


UNFIT = {
    "no time to drain": ({"settings": {"drainTimeout": "2m"}}, "terminationGracePeriodSeconds must be at least 137"),
    "no time for the last records": ({"terminationGracePeriodSeconds": 41}, "terminationGracePeriodSeconds must be at least 42"),
    "a port that nothing maps": ({"service": {"login": {"port": 443}}}, "service.login.port must be the port"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_numbers_that_do_not_fit_are_refused(what):
    change, expected = UNFIT[what]
    done = helm("template", "rel", str(CHART), "--kube-version", KUBERNETES[0], values=merged(bundle("production"), change))
    assert done.returncode != 0 and expected in done.stderr, done.stderr
    both = merged(bundle("production"), {"settings": {"drainTimeout": "2m"}, "terminationGracePeriodSeconds": 137})
    assert render(both)


def test_a_local_store_has_one_pod_at_a_time():
    values = merged(bundle("single"), {"secrets": {"databaseUrl": {"existingSecret": "d"}}})
    assert of_kind(manifests(values), "Deployment")[0]["spec"]["strategy"] == {"type": "Recreate"}


def test_the_chart_needs_values():
    assert helm("template", "rel", str(CHART), "--kube-version", KUBERNETES[0]).returncode != 0, "without a public URL nothing is rendered"


def test_values_mirror_the_programs_settings(settings):
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    special = {"logFilter": "RUST_LOG", "otelExporterOtlpEndpoint": "OTEL_EXPORTER_OTLP_ENDPOINT"}
    mirrored = {special.get(name, f"SSO_{snake(name)}") for name in values["settings"]}
    secret = {f"SSO_{snake(name)}{end}" for name in values["secrets"] for end in ("", "_FILE")}
    files = {f"SSO_{snake(name)}" for name in values["files"]}
    assert not mirrored & (secret | files)
    assert mirrored | secret | files == set(settings)


def test_each_value_arrives_as_its_variable(settings):
    values = bundle("production")
    given = {name: "true" for name in ("requireBrowserBinding", "allowInsecureProviders", "reflection", "allowInsecureListen", "traceProviders")}
    given |= {name: "7" for name in ("memoryPendingLogins", "knownConnections", "maxInFlight", "metricsAccounts")}
    given |= {name: "7m" for name in ("stateTtl", "identityTtl", "identityKeyLifetime", "drainTimeout")}
    values["terminationGracePeriodSeconds"] = 500
    values["service"] = {"login": {"port": 1}}
    given |= {name: "7/1m" for name in ("beginRatePerClient", "beginRate")}
    given |= {"listen": "0.0.0.0:1", "adminListen": "0.0.0.0:2", "metricsListen": "0.0.0.0:3", "logFormat": "text", "logFilter": "warn"}
    values["settings"] |= given
    files = {"tlsCertFile", "tlsKeyFile", "tlsClientCaFile", "redisCaFile", "callersFile", "providerCaFile"}
    values["files"]["providerCaFile"] = {"existingSecret": "cas"}
    container = of_kind(manifests(values), "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    for name, value in values["settings"].items():
        variable = {"logFilter": "RUST_LOG"}.get(name, snake(name) if name.startswith("otel") else f"SSO_{snake(name)}")
        assert variables.pop(variable) == value, name
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    for name in files | {"databaseUrlFile", "redisUrlFile", "encryptionKeysFile"}:
        path = pathlib.PurePosixPath(variables.pop(f"SSO_{snake(name)}"))
        assert str(path.parent) in mounts, name
    assert variables == {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=production"}
    assert [port["containerPort"] for port in container["ports"]] == [1, 2, 3]


def test_services_do_not_inject_variables():
    for name in BUNDLES:
        found = manifests(bundle(name))
        assert of_kind(found, "Deployment")[0]["spec"]["template"]["spec"]["enableServiceLinks"] is False, name
        assert of_kind(found, "Pod")[0]["spec"]["enableServiceLinks"] is False, name


def test_pods_run_with_minimal_privileges():
    for name in BUNDLES:
        found = manifests(bundle(name))
        pods = [found_one["spec"]["template"]["spec"] for found_one in of_kind(found, "Deployment")] + [pod["spec"] for pod in of_kind(found, "Pod")]
        for pod in pods:
            assert pod["automountServiceAccountToken"] is False
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
            for container in pod["containers"]:
                context = container["securityContext"]
                assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
                assert context["capabilities"]["drop"] == ["ALL"]


def test_the_network_is_open_only_where_it_must_be():
    policy = of_kind(manifests(bundle("production")), "NetworkPolicy")[0]["spec"]
    ingress = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"] if len(rule["ports"]) == 1}
    assert ingress["login"] != ingress["admin"] and all(ingress.values()), "the admin port has callers of its own"
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]
    assert ports == [[53, 53], [6379, 26379], [5432], [4317], [443]]
    blocks = [peer["ipBlock"] for peer in policy["egress"][-1]["to"]]
    assert "10.0.0.0/8" in blocks[0]["except"] and "fc00::/7" in blocks[1]["except"]
    assert [block["cidr"] for block in blocks[2:]] == ["10.20.0.0/16", "10.30.1.0/24"]
    single = of_kind(manifests(bundle("single")), "NetworkPolicy")[0]["spec"]
    assert [[port["port"] for port in rule["ports"]] for rule in single["egress"]] == [[53, 53], [443]], "no store, no way to one"


def test_shutdown_fits_into_its_time():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["preStopSeconds"] + 25 + 12 <= values["terminationGracePeriodSeconds"], "25 s is SSO_DRAIN_TIMEOUT's default"


def test_helm_test_asks_each_service():
    for name, scheme in [("production", "https"), ("single", "https"), ("mesh", "http")]:
        found = manifests(bundle(name))
        services = {service["metadata"]["name"]: service["spec"]["ports"] for service in of_kind(found, "Service")}
        pod = of_kind(found, "Pod")[0]
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
        asked = set()
        for container in pod["spec"]["containers"]:
            endpoint = next(argument for argument in container["args"] if argument.startswith("--endpoint="))
            url, host, port = re.fullmatch(r"--endpoint=(https?)://([^:]+):(\d+)", endpoint).groups()
            assert url == scheme
            assert any(entry["name"] == "grpc" and entry["port"] == int(port) for entry in services[host])
            asked.add(host)
            help_text = subprocess.run([PROGRAM, "health", "--help"], capture_output=True, text=True, check=True).stdout
            for argument in container["args"][1:]:
                assert argument.split("=")[0] in help_text
        assert asked == set(services)
