import { type Fleet, type FleetFile, invalid, OVERHEAD_MIB, runArguments, STOP_SECONDS } from "./fleet.ts";

/** The secret with the registry's settings: one key for each MVM_TEMPLATE_REGISTRY_… */
export const SECRET = "mvmctl-registry";
/** Names of pods are DNS labels, and the controller adds a number and a hash to a StatefulSet's. */
const MAX_NAME = 52;

/**
 * A StatefulSet (its pods have names that stay, as instances do) and the service that names them, as JSON, which
 * `kubectl apply -f` takes as it takes YAML.
 * @throws MvmError `INVALID_SETTINGS`
 */
export function kubernetesFiles(fleet: Fleet): FleetFile[] {
  if (fleet.isolate && !fleet.kvm) {
    throw invalid(
      "--isolate needs /dev/net/tun, which a container without privileges has not",
      "leave out --no-kvm, and the container is privileged; or leave out --isolate, and let a NetworkPolicy say what pods reach",
    );
  }
  const list = { apiVersion: "v1", kind: "List", items: [service(fleet), statefulSet(fleet)] };
  return [{ path: `${fleet.template}.kubernetes.json`, text: `${JSON.stringify(list, null, 2)}\n` }];
}

/** A template's name as a DNS label (RFC 1123). */
export function labelOf(template: string): string {
  return template.replace(/[._]/g, "-").slice(0, MAX_NAME).replace(/-+$/, "");
}

function service({ template, ports }: Fleet) {
  const name = labelOf(template);
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, labels: { app: name } },
    spec: {
      clusterIP: "None",
      selector: { app: name },
      ports: ports.map(({ hostPort }) => ({ name: `p${hostPort}`, port: hostPort })),
    },
  };
}

function statefulSet(fleet: Fleet) {
  const name = labelOf(fleet.template);
  return {
    apiVersion: "apps/v1",
    kind: "StatefulSet",
    metadata: { name, labels: { app: name } },
    spec: {
      serviceName: name,
      replicas: fleet.count,
      podManagementPolicy: "Parallel",
      selector: { matchLabels: { app: name } },
      template: { metadata: { labels: { app: name } }, spec: pod(fleet) },
    },
  };
}

function pod(fleet: Fleet) {
  const { template, ports, sizes } = fleet;
  // Each pod has a network of its own, where the VM listens on every address.
  const published = ports.flatMap(({ hostPort, guestPort }) => ["-p", `0.0.0.0:${hostPort}:${guestPort}`]);
  const memory = `${sizes.memMiB + OVERHEAD_MIB}Mi`;
  return {
    terminationGracePeriodSeconds: STOP_SECONDS,
    initContainers: [{ name: "pull", ...container(fleet, ["template", "pull", template]) }],
    containers: [
      {
        name: "run",
        ...container(fleet, [...runArguments(fleet, "$(POD_NAME)"), ...published]),
        ports: ports.map(({ hostPort }) => ({ name: `p${hostPort}`, containerPort: hostPort })),
        resources: { requests: { cpu: String(sizes.cpus), memory }, limits: { memory } },
        ...(fleet.kvm ? { securityContext: { privileged: true } } : {}),
      },
    ],
    volumes: [
      { name: "data", emptyDir: {} },
      ...(fleet.kvm ? [{ name: "kvm", hostPath: { path: "/dev/kvm", type: "CharDevice" } }] : []),
    ],
  };
}

function container({ program, dataDir, image, kvm }: Fleet, words: readonly string[]) {
  return {
    image,
    command: [program, ...words],
    env: [
      { name: "MVM_DATA_DIR", value: dataDir },
      { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
    ],
    envFrom: [{ secretRef: { name: SECRET } }],
    volumeMounts: [{ name: "data", mountPath: dataDir }, ...(kvm ? [{ name: "kvm", mountPath: "/dev/kvm" }] : [])],
  };
}
