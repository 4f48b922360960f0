# The least rights in Consul's ACLs that the redirector needs: to read the service, and the nodes that it runs on.
# Where the names of Vault's nodes are known, name them instead of all: node "vault-1" { policy = "read" } ...
#
# Use it:  consul acl policy create -name vault-redirect -rules @examples/consul-policy.hcl
#          consul acl token create -description "vault_redirect" -policy-name vault-redirect

service "vault" {
  policy = "read"
}

node_prefix "" {
  policy = "read"
}
