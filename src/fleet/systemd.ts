import { type Fleet, type FleetFile, PULL_SECONDS, runArguments, STOP_SECONDS } from "./fleet.ts";

/** Where the registry's settings are, one MVM_TEMPLATE_REGISTRY_… a line; readable by root alone. */
export const ENVIRONMENT_FILE = "/etc/mvmctl/registry.env";

/** A template unit whose instances are 1 to COUNT, and a target that starts and stops them all. */
export function systemdFiles(fleet: Fleet): FleetFile[] {
  const { template, count } = fleet;
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  return [
    { path: `${template}@.service`, text: serviceUnit(fleet) },
    { path: `${template}.target`, text: target(fleet, numbers) },
    ...(fleet.ports.length > 0 ? numbers.map((number) => portsOf(fleet, number)) : []),
  ];
}

function serviceUnit(fleet: Fleet): string {
  const { template, program, dataDir } = fleet;
  return `[Unit]
Description=microVM %i of the template ${template}
Wants=network-online.target
After=network-online.target
PartOf=${template}.target

[Service]
Type=exec
Environment=MVM_DATA_DIR=${dataDir}
# Each VM's published ports; see ${template}@*.service.d.
Environment=MVM_RUN_ARGUMENTS=
# MVM_TEMPLATE_REGISTRY_ENDPOINT=… and the other settings of the registry.
EnvironmentFile=-${ENVIRONMENT_FILE}
ExecStartPre=${program} template pull ${template}
ExecStart=${program} ${runArguments(fleet, `${template}-%i`).join(" ")} $MVM_RUN_ARGUMENTS
# Only mvmctl is told to stop: it shuts the guest down in order. Whatever is left after that is killed.
KillMode=mixed
TimeoutStartSec=${PULL_SECONDS}
TimeoutStopSec=${STOP_SECONDS}
Restart=on-failure
RestartSec=5

[Install]
WantedBy=${template}.target
`;
}

function target({ template, count }: Fleet, numbers: readonly number[]): string {
  return `[Unit]
Description=${count} ${count === 1 ? "microVM" : "microVMs"} of the template ${template}
${numbers.map((number) => `Wants=${template}@${number}.service\n`).join("")}
[Install]
WantedBy=multi-user.target
`;
}

/** All VMs of a fleet are on one machine here: each gets a host port of its own. */
function portsOf({ template, ports }: Fleet, number: number): FleetFile {
  const mapped = ports.map(
    ({ hostAddress, hostPort, guestPort }) => `-p ${hostAddress}:${hostPort + number - 1}:${guestPort}`,
  );
  return {
    path: `${template}@${number}.service.d/ports.conf`,
    text: `[Service]\nEnvironment="MVM_RUN_ARGUMENTS=${mapped.join(" ")}"\n`,
  };
}
