"""Tests of the Helm chart with the real helm: lint, rendering over a matrix of values, snapshots, what the chart says of
values that can't work, and every manifest against the API schemas of Kubernetes and the operators' CRDs. UPDATE_SNAPSHOTS=1 rewrites the
snapshots."""

import copy
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
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
EXAMPLES = {path.stem.removesuffix("-values"): path for path in (CHART / "ci").glob("*-values.yaml")}
BUNDLES = {**EXAMPLES, **{path.stem: path for path in (HERE / "values").glob("*.yaml")}}


def bundle(name):
    return yaml.safe_load(BUNDLES[name].read_text())


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


def container_of(found):
    return of_kind(found, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]


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
    # A long file, which another test compares.
    rendered = re.sub(r"(?<=  peerpanda-sso.json: \|\n)(?:    .*\n)+", "    files/dashboard.json\n", rendered)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(rendered)
    assert rendered == path.read_text(), f"{path} differs: look, then UPDATE_SNAPSHOTS=1 tests/chart/run"


def test_the_readme_lists_every_value():
    command = [os.environ["HELM_DOCS"], "--chart-search-root", str(CHART), "--sort-values-order", "file", "--dry-run", "--log-level", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    path, made = CHART / "README.md", done.stdout.rstrip("\n") + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(made)
    assert made == path.read_text(), "UPDATE_SNAPSHOTS=1 tests/chart/run writes README.md"
    rows = dict(re.findall(r"^\| ([a-zA-Z0-9.]+) \| (?:int|string|bool|list|object) \| .+ \| (.*) \|$", made, re.MULTILINE))
    # A group is listed as a whole if it is described, else value by value.
    def listed(prefix, value):
        return prefix in rows or isinstance(value, dict) and value and all(listed(f"{prefix}.{name}", inner) for name, inner in value.items())

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert [name for name, value in values.items() if not listed(name, value)] == []
    assert [name for name, description in rows.items() if not description.endswith(".")] == []


SWITCHES = [
    ("tls", [{}, {"certManager": {"enabled": False}, "settings": {"allowInsecureListen": True}, "files": {"tlsClientCaFile": {"existingConfigMap": ""}}},
             {"certManager": {"enabled": False}, "files": {"tlsCertFile": {"existingSecret": "t"}, "tlsKeyFile": {"existingSecret": "t"}}}]),
    ("scale", [{}, {"autoscaling": {"enabled": False}, "replicaCount": 5}]),
    ("policy", [{}, {"networkPolicy": {"enabled": False}}]),
    ("budget", [{}, {"podDisruptionBudget": {"maxUnavailable": "25%"}}]),
    ("watch", [{}, {"serviceMonitor": {"enabled": False}, "prometheusRule": {"enabled": False}, "grafanaDashboard": {"enabled": False}}]),
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
        "ServiceMonitor", "PrometheusRule", "Certificate", "PersistentVolumeClaim", "Pod", "ConfigMap",
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


def refusal(values):
    """What helm says of values that it refuses."""
    done = helm("template", "rel", str(CHART), "--namespace", "sso", "--kube-version", KUBERNETES[0], values=values)
    assert done.returncode != 0, "not refused"
    return done.stderr


# What nobody means: names that don't exist and values of a wrong type. The schema names the value.
MISSPELLED = {
    "an unknown setting": ({"settings": {"publicURL": "https://a.example"}}, "at '/settings': additional properties 'publicURL' not allowed"),
    "an unknown value": ({"replicas": 2}, "additional properties 'replicas' not allowed"),
    "a secret in values": ({"secrets": {"databaseUrl": {"value": "postgres://u:p@h/d"}}}, "at '/secrets/databaseUrl': additional properties 'value' not allowed"),
    "a log format": ({"settings": {"logFormat": "xml"}}, "at '/settings/logFormat': value must be one of '', 'text', 'json'"),
    "a switch": ({"settings": {"reflection": "maybe"}}, "at '/settings/reflection': value must be one of"),
    "a port": ({"service": {"admin": {"port": 70000}}}, "at '/service/admin/port': maximum: got 70,000, want 65,535"),
    "a number as text": ({"replicaCount": "2"}, "at '/replicaCount': got string, want integer"),
    "a part of a number": ({"settings": {"maxInFlight": 1.5}}, "at '/settings/maxInFlight': got number, want integer or string"),
    "a whole group removed": ({"secrets": None}, "missing property 'secrets'"),
}


@pytest.mark.parametrize("what", MISSPELLED)
def test_a_misspelled_value_is_named(what):
    change, expected = MISSPELLED[what]
    assert expected in refusal(merged(bundle("production"), change))


def test_default_values_are_refused_with_the_command_for_each_missing_thing():
    said = refusal({})
    assert "schema" not in said, said
    problems = said.split("\n\n")[2].removeprefix("- ").split("\n- ")
    assert [problem.split()[0] for problem in problems] == [
        "settings.publicUrl", "secrets.encryptionKeys.existingSecret", "secrets.databaseUrl.existingSecret",
        "secrets.redisUrl.existingSecret", "files.callersFile.existingSecret", "files.tlsCertFile.existingSecret",
    ]
    # Whoever runs the commands and sets what they say gets a release that is complete.
    flags, created = [], {}
    for problem in problems:
        sentence, *commands = [line.strip() for line in problem.splitlines()]
        assert " is not set: " in sentence, sentence
        for command in commands:
            if command.startswith("--set "):
                flags += shlex.split(command)
            else:
                words = shlex.split(command)
                assert words[:4] == ["kubectl", "create", "secret", "generic"] and words[5:7] == ["--namespace", "sso"], command
                created[words[4]] = {re.match(r"--from-(?:literal|file)=([^=]+)", word).group(1) for word in words[7:] if word.startswith("--from-")}
    done = helm("template", "rel", str(CHART), "--namespace", "sso", "--kube-version", KUBERNETES[0], *flags)
    assert done.returncode == 0, done.stderr
    pod = of_kind([manifest for manifest in yaml.safe_load_all(done.stdout) if manifest], "Deployment")[0]["spec"]["template"]["spec"]
    used = {}
    for volume in pod["volumes"]:
        used.setdefault(volume["secret"]["secretName"], set()).update(item["key"] for item in volume["secret"]["items"])
    assert used == {name: keys - {"ca.crt"} for name, keys in created.items()}
    assert created["rel-peerpanda-sso-tls"] == {"tls.crt", "tls.key", "ca.crt"}, "ca.crt is for helm test"


def test_what_is_missing_names_the_given_keys_and_release():
    values = {"fullnameOverride": "login", "secrets": {"encryptionKeys": {"key": "k"}}}
    assert "kubectl create secret generic login-keys --namespace sso --from-literal=k=" in refusal(values)


LACKING = {
    "no public URL": ({"settings": {"publicUrl": ""}}, "settings.publicUrl is not set"),
    "SQLite with several replicas": ({"secrets": {"databaseUrl": {"existingSecret": ""}}, "autoscaling": {"enabled": False}, "replicaCount": 2}, "secrets.databaseUrl.existingSecret is not set"),
    "SQLite with an autoscaler": ({"secrets": {"databaseUrl": {"existingSecret": ""}}, "replicaCount": 1}, "secrets.databaseUrl.existingSecret is not set"),
    "memory with several replicas": ({"secrets": {"redisUrl": {"existingSecret": ""}}, "autoscaling": {"enabled": False}, "replicaCount": 2}, "secrets.redisUrl.existingSecret is not set"),
    "memory with an autoscaler": ({"secrets": {"redisUrl": {"existingSecret": ""}}, "replicaCount": 1}, "secrets.redisUrl.existingSecret is not set"),
    "shared stores without a key": ({"secrets": {"encryptionKeys": {"existingSecret": ""}}}, "secrets.encryptionKeys.existingSecret is not set"),
    "no TLS": ({"certManager": {"enabled": False}}, "files.tlsCertFile.existingSecret is not set"),
    "no callers": ({"files": {"callersFile": {"existingSecret": ""}}}, "files.callersFile.existingSecret is not set"),
    "an issuer without a name": ({"certManager": {"issuerRef": {"name": ""}}}, "certManager.issuerRef.name is not set"),
    "a generated key of shared stores": ({"secrets": {"encryptionKeys": {"existingSecret": "", "generate": True}}}, "secrets.encryptionKeys.generate creates a key next to the SQLite file"),
    "half a certificate": ({"certManager": {"enabled": False}, "files": {"tlsCertFile": {"existingSecret": "t"}}}, "belong together"),
    "the other half": ({"certManager": {"enabled": False}, "files": {"tlsKeyFile": {"existingSecret": "t"}}}, "belong together"),
    "two certificates": ({"files": {"tlsCertFile": {"existingSecret": "t"}, "tlsKeyFile": {"existingSecret": "t"}}}, "name two certificates"),
    "callers' certificates without TLS": ({"certManager": {"enabled": False}, "settings": {"allowInsecureListen": "true"}}, "files.tlsClientCaFile verifies callers' certificates, which needs TLS"),
    "a file from two places": ({"files": {"redisCaFile": {"existingConfigMap": "c"}}}, "files.redisCaFile names a Secret and a ConfigMap"),
    "insecure IdPs": ({"settings": {"allowInsecureProviders": True}}, "settings.allowInsecureProviders works only with listeners at a loopback address"),
    "a claim that is not used": ({"persistence": {"enabled": False, "existingClaim": "c"}}, "persistence.existingClaim is not used"),
    "a setting past the chart": ({"extraEnv": [{"name": "SSO_DATABASE_URL", "value": "x"}]}, "extraEnv sets SSO_DATABASE_URL"),
    "an open admin listener": ({"networkPolicy": {"adminFrom": []}}, "networkPolicy.adminFrom is empty, which admits everybody"),
    "no time to drain": ({"settings": {"drainTimeout": "2m"}}, "terminationGracePeriodSeconds must be at least 140"),
    "no time to drain for longer": ({"settings": {"drainTimeout": "1m 30s 1ms"}}, "terminationGracePeriodSeconds must be at least 111"),
    "no time for the last records": ({"terminationGracePeriodSeconds": 44}, "terminationGracePeriodSeconds must be at least 45"),
    "a port that nothing maps": ({"service": {"login": {"port": 443}}}, "service.login.port must be the port of settings.listen (50051)"),
    "a public URL with a path": ({"settings": {"publicUrl": "https://a.example/app"}}, "settings.publicUrl must be an https origin without a path"),
    "a public URL over http": ({"settings": {"publicUrl": "http://a.example"}}, "settings.publicUrl must be an https origin without a path"),
    "no address": ({"settings": {"metricsListen": ""}}, "settings.metricsListen must be an IP address and a port"),
    "a host's name": ({"settings": {"adminListen": "localhost:1"}}, "settings.adminListen must be an IP address and a port"),
    "a duration without a unit": ({"settings": {"stateTtl": "15"}}, 'settings.stateTtl must be a duration such as 15m, not "15"'),
    "a rate without a period": ({"settings": {"beginRate": "100"}}, "settings.beginRate must be a count and a period such as 120/1m"),
    "a number that is too large": ({"settings": {"maxInFlight": 10000001}}, "settings.maxInFlight must be a number of 1 to 10000000"),
    "a network": ({"settings": {"allowedProviderCidrs": "intranet"}}, "settings.allowedProviderCidrs must be comma separated networks"),
    "a network without an account": ({"settings": {"accountProviderCidrs": "10.0.0.0/8"}}, "settings.accountProviderCidrs must be comma separated accounts and networks"),
    "a file without an account": ({"settings": {"accountProviderCas": "/ca.pem"}}, "settings.accountProviderCas must be comma separated accounts and files"),
    "an audience": ({"settings": {"identityAudience": "a b"}}, "settings.identityAudience must be 1 to 256 visible ASCII characters"),
    "a collector": ({"settings": {"otelExporterOtlpEndpoint": "otel:4317"}}, "settings.otelExporterOtlpEndpoint must be an http or https URL"),
    "a digest": ({"image": {"digest": "sha256:1"}}, "image.digest must be sha256:"),
    "no pod at all": ({"podDisruptionBudget": {"maxUnavailable": "100%"}}, "podDisruptionBudget.maxUnavailable must be"),
    "an interval": ({"serviceMonitor": {"interval": "30"}}, "serviceMonitor.interval must be a duration such as 30s"),
}


@pytest.mark.parametrize("what", LACKING)
def test_values_that_can_not_work_are_refused_in_words(what):
    change, expected = LACKING[what]
    said = refusal(merged(bundle("production"), change))
    assert expected in said and "schema" not in said, said


def test_all_problems_are_reported_at_once():
    changes = {"settings": {"stateTtl": "15", "publicUrl": ""}, "service": {"login": {"port": 443}}}
    said = refusal(merged(bundle("production"), changes))
    assert said.count("\n- ") == 3, said


def test_a_grace_period_that_fits_is_accepted():
    assert render(merged(bundle("production"), {"settings": {"drainTimeout": "2m"}, "terminationGracePeriodSeconds": 140}))


def test_a_large_number_arrives_as_digits():
    values = merged(bundle("production"), {"settings": {"memoryPendingLogins": 10000000, "knownConnections": 1000000}})
    env = {entry["name"]: entry["value"] for entry in container_of(manifests(values))["env"]}
    assert (env["SSO_MEMORY_PENDING_LOGINS"], env["SSO_KNOWN_CONNECTIONS"]) == ("10000000", "1000000")


def test_services_do_not_inject_variables():
    for name in BUNDLES:
        found = manifests(bundle(name))
        assert of_kind(found, "Deployment")[0]["spec"]["template"]["spec"]["enableServiceLinks"] is False, name
        assert of_kind(found, "Pod")[0]["spec"]["enableServiceLinks"] is False, name


def test_the_dashboard_is_in_a_config_map_that_the_sidecar_finds():
    found = of_kind(manifests(bundle("production")), "ConfigMap")
    assert len(found) == 1 and found[0]["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found[0]["data"]["peerpanda-sso.json"]) == json.loads((CHART / "files" / "dashboard.json").read_text())
    assert not of_kind(manifests(bundle("single")), "ConfigMap"), "off by default"


def test_the_notes_say_what_is_insecure_and_what_is_lost(tmp_path):
    # Helm prints notes only with a cluster, so they are rendered as a manifest of a copy.
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    text = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "_notes.tpl").write_text('{{ define "notes" }}' + text + "{{ end }}")
    (chart / "templates" / "notes.yaml").write_text('notes: {{ include "notes" . | quote }}\n')

    def notes(name):
        done = helm("template", "rel", str(chart), "--namespace", "sso", "--kube-version", KUBERNETES[0], "--show-only", "templates/notes.yaml", values=bundle(name))
        assert done.returncode == 0, done.stderr
        return yaml.safe_load(done.stdout)["notes"]

    dev, production, single = notes("dev"), notes("production"), notes("single")
    for text in [
        "WARNING: INSECURE", "can begin and complete logins", "loses the logins that have begun",
        "all are lost when the pod is deleted", "The encryption key lies next to the database",
    ]:
        assert text in dev and text not in production, text
    assert "Secret sso-keys, key encryption-keys" in production and "ConfigMap sso-client-ca, key ca.crt" in production
    assert "Secret" not in dev, "it needs none"
    assert "loses the logins" in single and "INSECURE" not in single


def test_a_local_store_has_one_pod_at_a_time():
    values = merged(bundle("single"), {"secrets": {"databaseUrl": {"existingSecret": "d"}}})
    assert of_kind(manifests(values), "Deployment")[0]["spec"]["strategy"] == {"type": "Recreate"}


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
    # Loopback, without which insecure IdPs are refused.
    given |= {"listen": "127.0.0.1:1", "adminListen": "127.0.0.1:2", "metricsListen": "0.0.0.0:3", "logFormat": "text", "logFilter": "warn"}
    values["settings"] |= given
    files = {"tlsCertFile", "tlsKeyFile", "tlsClientCaFile", "redisCaFile", "callersFile", "providerCaFile"}
    values["files"]["providerCaFile"] = {"existingSecret": "cas"}
    container = container_of(manifests(values))
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
    account = manifests(merged(bundle("production"), {"settings": {"accountProviderCidrs": "acme=10.40.0.0/16, acme = 10.50.0.0/16"}}))
    blocks = [peer["ipBlock"]["cidr"] for peer in of_kind(account, "NetworkPolicy")[0]["spec"]["egress"][-1]["to"]]
    assert blocks[4:] == ["10.40.0.0/16", "10.50.0.0/16"]
    single = of_kind(manifests(bundle("single")), "NetworkPolicy")[0]["spec"]
    assert [[port["port"] for port in rule["ports"]] for rule in single["egress"]] == [[53, 53], [443]], "no store, no way to one"


def test_shutdown_fits_into_its_time():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["preStopSeconds"] + 25 + 15 <= values["terminationGracePeriodSeconds"], "25 s is SSO_DRAIN_TIMEOUT's default"


def test_helm_test_asks_each_service():
    for name, scheme in [("production", "https"), ("single", "https"), ("mesh", "http"), ("dev", "http")]:
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
