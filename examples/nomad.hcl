# Redirectors as a Nomad job: two, on different machines, at port 443 of each, registered in Consul with their checks. Clients find them
# by vault-redirect.service.consul.
#
#   nomad job plan examples/nomad.hcl
#   nomad job run -var image=registry.example.com/vault-redirect:1 examples/nomad.hcl
#
# The image is made by examples/Dockerfile. What Nomad's clients need: certificate and authorities in /etc/vault-redirect, readable for user
# 10001; max_kill_timeout = "90s"; and volumes { enabled = true } for the plugin docker. Consul's agents listen on the machine's address.
# Consul's token comes from Nomad's workload identity (https://developer.hashicorp.com/nomad/docs/integrations/consul/acl), with a policy as
# in consul-policy.hcl; without ACLs in Consul, leave out the block "consul".
#
# Not run on Nomad in our tests, which have none. The HCL is parsed, each name in it compared with those that Nomad's API has, and the
# Caddyfile in it is loaded.
variable "image" {
  type    = string
  default = "registry.example.com/vault-redirect:1"
}

job "vault-redirect" {
  datacenters = ["dc1"]
  type        = "service"

  # One after the other, and back to the old version if a new one does not become healthy.
  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "10s"
    healthy_deadline = "2m"
    auto_revert      = true
  }

  group "redirector" {
    count = 2

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    network {
      port "https" {
        static = 443
        to     = 8443
      }
    }

    service {
      name = "vault-redirect"
      port = "https"

      # Takes this copy out of Consul DNS while it drains, starts, or has lost Consul without knowing a node.
      check {
        name            = "ready"
        type            = "http"
        protocol        = "https"
        path            = "/vault-redirector-health/ready"
        tls_skip_verify = true
        interval        = "2s"
        timeout         = "1s"
      }

      # Restarts a copy that hangs. It does not fail while Vault or Consul do.
      check {
        name            = "live"
        type            = "http"
        protocol        = "https"
        path            = "/vault-redirector-health/live"
        tls_skip_verify = true
        interval        = "10s"
        timeout         = "3s"

        check_restart {
          limit = 3
          grace = "30s"
        }
      }
    }

    task "caddy" {
      driver = "docker"

      # Longer than shutdown_delay and grace_period of the Caddyfile together.
      kill_timeout = "90s"
      kill_signal  = "SIGTERM"

      consul {}

      config {
        image           = var.image
        ports           = ["https"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        args            = ["run", "--config", "/local/Caddyfile"]

        mount {
          type   = "tmpfs"
          target = "/tmp"
        }

        mount {
          type     = "bind"
          source   = "/etc/vault-redirect"
          target   = "/etc/vault-redirect"
          readonly = true
        }
      }

      # CONSUL_HTTP_TOKEN is set by the block "consul".
      env {
        CONSUL_HTTP_ADDR = "http://${attr.unique.network.ip-address}:8500"
      }

      template {
        destination = "local/Caddyfile"
        # A changed config is loaded by a restart, which drains.
        change_mode = "restart"
        data        = <<-EOF
          {
          	auto_https disable_redirects
          	admin unix//tmp/admin.sock
          	persist_config off
          	shutdown_delay 15s
          	grace_period 60s
          	log {
          		format filter {
          			wrap json
          			fields {
          				request>headers>X-Vault-Token delete
          				request>headers>X-Consul-Token delete
          				request>headers>X-Vault-Mfa delete
          				request>headers>Authorization delete
          				request>headers>Cookie delete
          			}
          		}
          	}
          }

          https://:8443 {
          	tls /etc/vault-redirect/vault.pem /etc/vault-redirect/vault-key.pem
          	vault_redirect {
          		probe {
          			tls {
          				ca /etc/vault-redirect/vault-ca.pem
          			}
          		}
          	}
          }
        EOF
      }

      resources {
        cpu    = 500
        memory = 512
      }
    }
  }
}
