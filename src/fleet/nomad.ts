import { type Fleet, type FleetFile, OVERHEAD_MIB, runArguments, STOP_SECONDS } from "./fleet.ts";

/** MHz that Nomad counts for a virtual CPU when it places VMs: no limit, as raw_exec knows none. */
const MHZ_PER_CPU = 500;

/**
 * A Nomad job. Its tasks use raw_exec: a VM needs the machine's /dev/kvm and the programs there, which exec's file system
 * does not have.
 */
export function nomadFiles(fleet: Fleet): FleetFile[] {
  return [{ path: `${fleet.template}.nomad.hcl`, text: job(fleet) }];
}

function job(fleet: Fleet): string {
  const { template, count, ports, sizes } = fleet;
  const labels = ports.map(({ guestPort }) => `p${guestPort}`);
  const network = labels.map((label) => `      port "${label}" {}\n`).join("");
  const published = ports.flatMap(({ guestPort }) => {
    const label = `p${guestPort}`;
    return ["-p", `\${NOMAD_IP_${label}}:\${NOMAD_PORT_${label}}:${guestPort}`];
  });
  const run = [...runArguments(fleet, `${template}-\${NOMAD_ALLOC_INDEX}`), ...published];
  return `job ${quote(template)} {
  type = "service"

  group "vm" {
    count = ${count}
${network ? `\n    network {\n${network}    }\n` : ""}
    task "pull" {
      lifecycle {
        hook = "prestart"
      }
${task(fleet, ["template", "pull", template])}
    }

    task "run" {
      # mvmctl shuts the guest down in order.
      kill_signal  = "SIGTERM"
      kill_timeout = "${STOP_SECONDS}s"
${task(fleet, run)}

      resources {
        cpu    = ${sizes.cpus * MHZ_PER_CPU}
        memory = ${sizes.memMiB + OVERHEAD_MIB}
      }
    }
  }
}
`;
}

/** What both tasks have: the program, and the registry's settings from the job's Nomad variable. */
function task({ template, program, dataDir }: Fleet, words: readonly string[]): string {
  return `      driver = "raw_exec"

      config {
        command = ${quote(program)}
        args    = [${words.map(quote).join(", ")}]
      }

      env {
        MVM_DATA_DIR = ${quote(dataDir)}
      }

      # The registry's settings: nomad var put nomad/jobs/${template} MVM_TEMPLATE_REGISTRY_ENDPOINT=…
      template {
        destination = "secrets/registry.env"
        perms       = "0600"
        env         = true
        change_mode = "noop"
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/${template}" -}}
          {{- range .Tuples }}
          {{ .K }}={{ .V }}
          {{- end }}
          {{- end }}
        EOT
      }`;
}

/** Everything quoted is of our own grammar or checked to be plain, but for Nomad's own variables. */
function quote(text: string): string {
  return `"${text}"`;
}
