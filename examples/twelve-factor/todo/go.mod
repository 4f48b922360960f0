module github.com/vault-redirector/caddy-vault-redirect/examples/twelve-factor/todo

go 1.26.0

require github.com/go-sql-driver/mysql v1.9.3

require filippo.io/edwards25519 v1.1.0 // indirect
