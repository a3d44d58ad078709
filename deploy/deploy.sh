#!/usr/bin/env bash
# From nothing to flame graphs on a Kubernetes cluster, and back.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: deploy.sh [OPTION]...

Puts Everflame on the cluster that kubectl speaks to: checks, applies, waits until
everything is ready, has each agent check itself, and says what to open. It may be repeated,
and run from any directory.

  --overlay NAME     what to install (default: standalone)
                       standalone       an agent per node, and a server
                       profiling-nodes  the same, agents only on nodes with the label
                                        everflame.io/profile=true
                       tls              as standalone, over TLS; certificate and key from a Secret
                       collector        agents alone, to an OpenTelemetry collector
                       elastic          agents alone, to Elastic's collector
                       also-collector   standalone, and to an OpenTelemetry collector as well
                       also-elastic     standalone, and to Elastic's collector as well
                       aws-secret       agents alone, to where a secret of AWS Secrets
                                        Manager says (docs/secrets.md)
  --namespace NAME   where (default: everflame)
  --endpoint URL     where agents send profiles, if not to the overlay's own; with also-…, where
                     they send as well
  --image NAME       image of the program, e.g. registry.example/everflame:0.1.0
  --timeout SECONDS  how long to wait until all is ready (default: 300)
  --dry-run          print what would be applied, change nothing
  --uninstall        remove everything that was installed
  --help             this text

Environment: KUBECONFIG as kubectl reads it.
HELP
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
namespace=everflame overlay=standalone endpoint="" image="" timeout=300 dry_run="" uninstall="" also=""

say() { echo "deploy: $*" >&2; }
warn() { echo "deploy: warning: $*" >&2; }
die() {
    echo "deploy: $1" >&2
    [ $# -lt 2 ] || echo "deploy: $2" >&2
    exit 1
}
wrong() {
    echo "deploy: $1: see deploy.sh --help" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case "$1" in
    --namespace=* | --overlay=* | --endpoint=* | --image=* | --timeout=*)
        option="${1%%=*}" value="${1#*=}"
        shift
        ;;
    --namespace | --overlay | --endpoint | --image | --timeout)
        [ $# -ge 2 ] || wrong "$1 needs a value"
        option="$1" value="$2"
        shift 2
        ;;
    --dry-run) dry_run=yes option="" && shift ;;
    --uninstall) uninstall=yes option="" && shift ;;
    --help | -h) usage && exit 0 ;;
    *) wrong "unknown option $1" ;;
    esac
    case "${option:-}" in
    --namespace) namespace="$value" ;;
    --overlay) overlay="$value" ;;
    --endpoint) endpoint="$value" ;;
    --image) image="$value" ;;
    --timeout) timeout="$value" ;;
    esac
done
[[ "$namespace" =~ ^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$ ]] || wrong "--namespace $namespace is no name of a namespace"
[[ "$timeout" =~ ^[0-9]+$ ]] || wrong "--timeout $timeout is no number of seconds"
[[ -z "$endpoint" || "$endpoint" =~ ^https?://[A-Za-z0-9.-]+(:[0-9]+)?/?$ ]] || wrong "--endpoint $endpoint is no http://HOST:PORT"
[[ "$image" =~ ^[A-Za-z0-9./:@_-]*$ ]] || wrong "--image $image is no name of an image"
case "$overlay" in
standalone | profiling-nodes | tls) server=yes ;;
also-collector | also-elastic) server=yes also=yes ;;
collector | elastic) server="" ;;
aws-secret)
    server=""
    [ -z "$endpoint" ] || wrong "--endpoint is not for the overlay aws-secret: its secret says where to send"
    ;;
*) wrong "there is no overlay $overlay" ;;
esac

# ---- what is installed ------------------------------------------------------------------
# The port of a URL.
port_of() {
    local rest="${1#*://}"
    rest="${rest%/}"
    case "$1" in
    *://*:*) echo "${rest##*:}" ;;
    https*) echo 443 ;;
    *) echo 80 ;;
    esac
}

# What takes the place of the server that agents send to.
instead="$endpoint"
[ -z "$also" ] || instead=""

# The overlay's objects, with the names and addresses that were asked for.
render() {
    if [ "$overlay" = standalone ]; then
        for file in namespace rbac network-policies admission-policy server agent; do
            cat "$here/kubernetes/$file.yaml"
            echo ---
        done
    elif command -v kustomize >/dev/null; then
        kustomize build "$here/overlays/$overlay"
    elif ! kubectl kustomize "$here/overlays/$overlay" 2>/dev/null; then
        die "overlay $overlay needs kubectl 1.27 or newer, or kustomize, in PATH" "install one of them, then repeat"
    fi | sed \
        -e "s|^\( *namespace: \)everflame\$|\1$namespace|" \
        -e "s|^\(  name: \)everflame\$|\1$namespace|" \
        -e "s|^\( *kubernetes.io/metadata.name: \)everflame\$|\1$namespace|" \
        -e "s|everflame-server\.everflame|everflame-server.$namespace|g" \
        ${instead:+-e "s|^\(  EVERFLAME_ENDPOINT: \).*|\1$instead|"} \
        ${endpoint:+-e "s|^\(  EVERFLAME_ALSO: \)[^?]*|\1$endpoint|"} \
        ${endpoint:+-e "s|^\(  ELASTIC_ENDPOINT: \).*|\1$endpoint|"} \
        ${image:+-e "s|^\( *image: \).*|\1$image|"} \
        ${image:+-e "s|^\([ -]*expression: \)[\"']*everflame:[^\"']*[\"']*\$|\1\"'$image'\"|"} || return 1
    [ -z "$endpoint" ] || cat <<POLICY
---
# The other policies let agents reach the overlay's own endpoint.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: everflame-agent-endpoint
  namespace: $namespace
  labels:
    app: everflame-agent
    app.kubernetes.io/part-of: everflame
spec:
  podSelector:
    matchLabels:
      app: everflame-agent
  policyTypes: [Egress]
  egress:
    - ports:
        - port: $(port_of "$endpoint")
          protocol: TCP
POLICY
}

objects=$(render) || exit 1

# Pods read their settings once, as they start: a digest of them in the template of the pods replaces these when
# the settings change, by another --endpoint or another overlay.
digest() {
    awk -v wanted="$1" '
        function flush() { if (kind == "ConfigMap" && name == wanted) printf "%s", settings; settings = kind = name = "" }
        /^---/ { flush() }
        /^kind: / { kind = $2 }
        /^  name: / && name == "" { name = $2 }
        /^  [A-Z][A-Z_]*: / { settings = settings $0 "\n" }
        END { flush() }' <<<"$objects" | LC_ALL=C sort | cksum | awk '{ print $1 "-" $2 }'
}
for app in everflame-agent everflame-server; do
    objects=$(sed -e "s|^\( *everflame.io/settings: \)$app\$|\1$(digest "$app")|" <<<"$objects")
done

# The objects whose `APIVERSION KIND` stands in the first argument (all, if it is empty), but
# for the kinds in the second. What a cluster lacks is said.
choose() {
    awk -v served="$1" -v without="$2" '
        BEGIN { n = split(served, lines, "\n"); for (i = 1; i <= n; i++) is[lines[i]] = 1 }
        function flush() {
            if (kind != "" && index(" " without " ", " " kind " ") == 0) {
                if (served == "" || (version " " kind) in is) printf "---\n%s", text
                else print "deploy: warning: this cluster has no " kind " of " version ": left out " name > "/dev/stderr"
            }
            text = kind = version = name = ""
        }
        /^---/ { flush(); next }
        /^apiVersion: / { version = $2 }
        /^kind: / { kind = $2 }
        /^  name: / && name == "" { name = $2 }
        { text = text $0 "\n" }
        END { flush() }' <<<"$objects"
}

if [ -n "$dry_run" ] && [ -z "$uninstall" ]; then
    choose "" ""
    say "nothing was changed: this is what would be applied"
    exit 0
fi

# ---- checks -----------------------------------------------------------------------------
command -v kubectl >/dev/null || die "kubectl is not in PATH" "install it as your distribution or cloud says, then repeat"
context=$(kubectl config current-context 2>/dev/null || echo "the default one")
if ! answer=$(kubectl get --raw /version --request-timeout=15s 2>&1); then
    die "no cluster answers (context: $context): ${answer##*$'\n'}" \
        "set KUBECONFIG or run 'kubectl config use-context NAME', and try 'kubectl cluster-info'"
fi
minor=$(sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p' <<<"$answer")
say "cluster: $context, Kubernetes 1.$minor"
[ "${minor:-0}" -ge 20 ] || die "Kubernetes 1.$minor is too old: 1.20 or newer is needed"
# Fields that an old API server does not know are dropped by it: appArmorProfile, whose older
# form stands beside it.
validate=--validate=true
[ "$minor" -ge 30 ] || validate=--validate=false

served=$(kubectl api-resources --no-headers | awk '{ print $(NF - 2), $NF }')
[ -n "$served" ] || die "the cluster lists no resources" "try 'kubectl api-resources'"

allowed() { kubectl auth can-i "$@" >/dev/null 2>&1; }
verb=create
[ -z "$uninstall" ] || verb=delete
for resource in namespaces clusterroles.rbac.authorization.k8s.io clusterrolebindings.rbac.authorization.k8s.io \
    priorityclasses.scheduling.k8s.io; do
    allowed "$verb" "$resource" || die "you may not $verb $resource in this cluster" \
        "ask an administrator of it to run this script, or for the role cluster-admin"
done
for resource in daemonsets.apps statefulsets.apps services configmaps serviceaccounts networkpolicies.networking.k8s.io; do
    allowed "$verb" "$resource" --namespace "$namespace" || die "you may not $verb $resource in namespace $namespace" \
        "ask an administrator of it to run this script, or for the role admin there"
done

# Whether the namespace is one that others made: then it is left as it is.
foreign=""
if part=$(kubectl get namespace "$namespace" -o 'jsonpath={.metadata.labels.app\.kubernetes\.io/part-of}' 2>/dev/null); then
    [ "$part" = everflame ] || foreign=yes
fi

# ---- uninstall --------------------------------------------------------------------------
if [ -n "$uninstall" ]; then
    if [ -n "$dry_run" ]; then
        choose "$served" "${foreign:+Namespace}" | awk '/^kind: /{k=$2} /^  name: /&&k{print "would delete", k, $2; k=""}'
        exit 0
    fi
    # Agents first: they hand over what they hold while the server is there.
    kubectl delete daemonset everflame-agent --namespace "$namespace" --ignore-not-found --cascade=foreground --timeout="${timeout}s" >&2 ||
        die "the agents do not end" "look at 'kubectl -n $namespace get pods -l app=everflame-agent', then repeat"
    choose "$served" "${foreign:+Namespace}" | kubectl delete --ignore-not-found --timeout="${timeout}s" -f - >&2 ||
        die "not everything could be deleted" "see above, then repeat"
    if [ -n "$foreign" ]; then
        # What the manifests do not name stays with the namespace: claims and tokens.
        kubectl delete persistentvolumeclaim --namespace "$namespace" -l app=everflame-server --ignore-not-found --timeout="${timeout}s" >&2
        kubectl delete secret,networkpolicy --namespace "$namespace" -l app.kubernetes.io/part-of=everflame --ignore-not-found >&2
    fi
    say "removed; namespace $namespace ${foreign:+was not made by this script and stays}${foreign:-is gone}"
    exit 0
fi

# ---- more checks ------------------------------------------------------------------------
select="kubernetes.io/os=linux"
[ "$overlay" != profiling-nodes ] || select="everflame.io/profile=true"
nodes=$(kubectl get nodes -l "$select" -o 'jsonpath={range .items[*]}{.metadata.name} {.status.nodeInfo.kernelVersion}{"\n"}{end}')
[ -n "$nodes" ] || die "no node has the label $select" \
    "label those to profile: kubectl label node NODE $select (or choose another --overlay)"
old=""
while read -r node kernel; do
    if [[ "$kernel" =~ ^([0-9]+)\.([0-9]+) ]]; then
        if [ "${BASH_REMATCH[1]}" -lt 5 ] || { [ "${BASH_REMATCH[1]}" = 5 ] && [ "${BASH_REMATCH[2]}" -lt 10 ]; }; then
            old="$old $node ($kernel)"
        fi
    fi
done <<<"$nodes"
[ -z "$old" ] || die "Linux 5.10 or newer is needed, but these nodes are older:$old" \
    "update them, or leave them out: label the others with everflame.io/profile=true and use --overlay profiling-nodes"
# The policies know namespaces by a label that Kubernetes puts on them from 1.21 on.
if named=$(kubectl get namespace kube-system -o 'jsonpath={.metadata.labels.kubernetes\.io/metadata\.name}' 2>/dev/null); then
    [ -n "$named" ] || warn "where network policies are enforced, agents cannot ask this cluster's DNS until its namespace is labelled:" \
        "kubectl label namespace kube-system kubernetes.io/metadata.name=kube-system"
fi
say "nodes: $(wc -l <<<"$nodes" | tr -d ' '), each with Linux 5.10 or newer"

if [[ "$overlay" = *elastic ]]; then
    key=$(kubectl get secret everflame-elastic --namespace "$namespace" -o 'jsonpath={.data.apiKey}' 2>/dev/null || true)
    [ -n "$key" ] || die "Secret everflame-elastic with the key apiKey is missing in namespace $namespace" \
        "kubectl create namespace $namespace; kubectl -n $namespace create secret generic everflame-elastic --from-file=apiKey=FILE"
fi
if [ "$overlay" = tls ]; then
    for key in 'tls\.crt' 'tls\.key' 'ca\.crt'; do
        value=$(kubectl get secret everflame-tls --namespace "$namespace" -o "jsonpath={.data.$key}" 2>/dev/null || true)
        [ -n "$value" ] || die "Secret everflame-tls with the key ${key/\\/} is missing in namespace $namespace" \
            "kubectl create namespace $namespace; kubectl -n $namespace create secret generic everflame-tls --type=kubernetes.io/tls --from-file=tls.crt=CERT --from-file=tls.key=KEY --from-file=ca.crt=CA (or have cert-manager make it)"
    done
fi
if [ -n "$foreign" ]; then
    warn "namespace $namespace exists and is left as it is; the agents need one that admits privileged pods:" \
        "kubectl label namespace $namespace pod-security.kubernetes.io/enforce=privileged"
fi

# ---- apply ------------------------------------------------------------------------------
trouble() {
    kubectl get pods --namespace "$namespace" -l "app=$1" -o wide >&2 || true
    kubectl get events --namespace "$namespace" --field-selector type=Warning --sort-by=.lastTimestamp 2>/dev/null | tail -n 10 >&2 || true
    kubectl logs --namespace "$namespace" -l "app=$1" --tail=10 >&2 2>/dev/null || true
    die "$2 not ready after $timeout s" "the events and the log above say why"
}
wait_for() { kubectl rollout status --namespace "$namespace" "$1" --timeout="${timeout}s" >&2; }
# Applies what the cluster knows, but for the kinds that are named.
apply() {
    choose "$served" "${foreign:+Namespace} ${1:-}" | kubectl apply "$validate" -f - >&2 ||
        die "the cluster did not take everything" "see above; repeat when it is put right"
}

has_secret() { [ -n "$(kubectl get secret "$1" --namespace "$namespace" -o 'jsonpath={.data.token}' 2>/dev/null)" ]; }
# Keeps what standard input says as the token of a Secret: never an argument, never shown.
keep_token() {
    kubectl create secret generic "$1" --namespace "$namespace" --from-file=token=/dev/stdin >&2 ||
        die "cannot make Secret $1 in namespace $namespace" "see above; repeat when it is put right"
    kubectl label secret "$1" --namespace "$namespace" app.kubernetes.io/part-of=everflame >/dev/null
}
# Has the server make a token of a role, unless its Secret is there.
server_token() {
    local secret="$1" token
    shift
    has_secret "$secret" && return
    token=$(kubectl exec --namespace "$namespace" everflame-server-0 -c server -- /everflame token create --name "$secret" "$@" </dev/null) ||
        die "the server makes no token" "see above; repeat when it is put right"
    keep_token "$secret" <<<"$token"
}

# The server first, then its tokens, then the agents, which have somebody to send to.
if [ -n "$server" ]; then
    apply "StatefulSet DaemonSet"
    has_secret everflame-admin || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' | keep_token everflame-admin
    apply DaemonSet
    wait_for statefulset/everflame-server || trouble everflame-server "the server is"
    server_token everflame-agent --role agent
    server_token everflame-metrics --role reader --project '*'
fi
apply
# Of an endpoint that agents sent to before.
[ -n "$endpoint" ] || kubectl delete networkpolicy everflame-agent-endpoint --namespace "$namespace" --ignore-not-found >&2 ||
    warn "agents may still go out to where they sent before: delete NetworkPolicy everflame-agent-endpoint"
wait_for daemonset/everflame-agent || trouble everflame-agent "agents are"

# ---- each agent checks itself -----------------------------------------------------------
failed=""
while read -r pod node; do
    [ -n "$pod" ] || continue
    say "doctor on $node ($pod):"
    kubectl exec --namespace "$namespace" "$pod" -c agent -- /everflame doctor </dev/null >&2 || failed="$failed $node"
done < <(kubectl get pods --namespace "$namespace" -l app=everflame-agent --field-selector status.phase=Running \
    -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{"\n"}{end}')
[ -z "$failed" ] || die "doctor found faults on:$failed" "each line that begins with 'fail' ends with what to do"

if [ -n "$server" ]; then
    scheme=http
    [ "$overlay" != tls ] || scheme=https
    cat <<TEXT

Everflame is ready. To see it:
  kubectl -n $namespace port-forward service/everflame-server 4040:4040
then open $scheme://127.0.0.1:4040 and log in with the token that this prints:
  kubectl -n $namespace get secret everflame-admin -o go-template='{{.data.token | base64decode}}'
TEXT
else
    cat <<TEXT

Everflame's agents are ready and send profiles to ${endpoint:-the endpoint of overlay $overlay}.
TEXT
fi
cat <<TEXT
Pods:  kubectl -n $namespace get pods -l app=everflame-agent
Logs:  kubectl -n $namespace logs -l app=everflame-agent
TEXT
