// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package cluster runs real Consul and real Vault servers on loopback addresses, and kills, seals and pauses them.
// Tests, the demo and the benchmarks use it. It needs Linux, where all of 127.0.0.0/8 is loopback.
//
// Each cluster has a /24 of its own and a folder of its own, each server its own address with the standard ports; so
// any number of clusters run side by side. All servers end with Close, or with the process that started them.
package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

const (
	startTimeout = 90 * time.Second      // for a machine that is busy with other tests
	pollEvery    = 50 * time.Millisecond // how often servers are asked whether they are ready: each question costs them well under 1 ms
	probeTimeout = 2 * time.Second       // for one question to one server, which may be paused
)

// Storage says where Vault keeps its data.
type Storage int

const (
	Raft          Storage = iota // each node its own copy, Vault's integrated storage
	ConsulStorage                // in Consul's key-value store
	DynamoStorage                // in DynamoDB, played by dynalite; needs NoConsul
)

// Options say what to start. The zero value is three Vault nodes with raft storage, plain HTTP, and one Consul server
// that they register with.
type Options struct {
	Vaults       int     // number of Vault nodes, default 3
	Consuls      int     // number of Consul servers, default 1, which keeps its state in memory
	NoConsul     bool    // no Consul, no registration
	OpenBao      bool    // the nodes are OpenBao's, see Bao; it does not register itself in Consul, so NoConsul is needed
	NoVault      bool    // no Vault; Vaults is still the number of agents with AgentPerNode
	AgentPerNode bool    // a Consul client agent beside each Vault node, on its address and named like it
	Storage      Storage // default Raft
	TLS          bool    // Vault serves https
	ConsulTLS    bool    // Consul serves https too, for clients with a certificate only
	ConsulSocket bool    // Consul serves http on a unix socket too
	ACL          bool    // Consul denies what no token allows
	ConsulConns  int     // that one address may have to Consul; default Consul's own, 200

	// Listener is added to the configuration of each Vault node's listener.
	Listener map[string]any

	// RaftMultiplier is by how much raft's times are longer than they may be at the least. Default: 1, for quick failovers;
	// Vault's own is 5, with which a busy machine does not elect anew all the time.
	RaftMultiplier int

	// ReconcileTimeout is how often Vault looks whether Consul still knows it. Default: Vault's own, 60s.
	ReconcileTimeout time.Duration

	Log    io.Writer // gets a line for all that is done to a server; default none
	LogDir string    // keeps the servers' logs; default the cluster's folder, which Close removes
}

// Cluster is a running cluster. Its fields do not change after Start.
type Cluster struct {
	Consuls []*Consul // the servers
	Agents  []*Consul // the client agents, one for each Vault, with Options.AgentPerNode
	Vaults  []*Vault
	Dynamo  *process.Process // dynalite, with DynamoStorage

	RootToken       string // Vault's
	VaultCA         string // file of the CA of Vault's certificates, with Options.TLS
	ManagementToken string // Consul's, with Options.ACL
	ConsulCA        string // file of the CA of Consul's certificates, with Options.ConsulTLS
	ConsulCert      string // file of a client certificate for Consul, with Options.ConsulTLS
	ConsulKey       string // file of its key

	options                     Options
	dir, logDir                 string
	net                         *subnet
	consulProgram, vaultProgram string
	consulAuthority             *authority
	vaultAuthority              *authority
	client                      *http.Client
	unsealKey                   string
	logMu                       sync.Mutex
	procMu                      sync.Mutex
	processes                   []*process.Process
	closeOnce                   sync.Once
	closeErr                    error
}

// Start brings up a cluster and returns when it is initialised, unsealed, has an active node, and Consul lists every
// node. Without a deadline in ctx it gives up after 90 seconds, not counting the building of programs. After an error
// nothing is left running; the error holds the end of the log of a server that has ended.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	c, err := start(ctx, o)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// start returns the cluster in any case, as far as it came.
func start(ctx context.Context, o Options) (c *Cluster, err error) {
	if o.Vaults == 0 {
		o.Vaults = 3
	}
	if o.Consuls == 0 {
		o.Consuls = 1
	}
	if o.RaftMultiplier == 0 {
		o.RaftMultiplier = 1
	}
	c = &Cluster{options: o}
	switch {
	case runtime.GOOS != "linux":
		return c, errNotLinux
	case o.NoConsul && (o.Storage == ConsulStorage || o.AgentPerNode || o.NoVault):
		return c, errors.New("start cluster: Consul is left out, but something needs it")
	case o.Storage == DynamoStorage && !o.NoConsul:
		return c, errors.New("start cluster: dynalite takes the place of Consul")
	case o.OpenBao && !o.NoConsul:
		return c, errors.New("start cluster: OpenBao does not register itself in Consul")
	case o.Vaults < 0 || o.Vaults > mostVaults || o.Consuls < 0 || o.Consuls > mostConsuls:
		return c, fmt.Errorf("start cluster: at most %d Vault nodes and %d Consul servers", mostVaults, mostConsuls)
	}
	if !o.NoConsul {
		if c.consulProgram, err = Program(ctx, "consul", c.note); err != nil {
			return c, err
		}
	}
	switch {
	case o.OpenBao:
		c.vaultProgram, err = Bao()
	case !o.NoVault:
		c.vaultProgram, err = Program(ctx, "vault", c.note)
	}
	if err != nil {
		return c, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not up after %s", startTimeout))
		defer cancel()
	}
	if err := c.prepare(); err != nil {
		return c, err
	}
	if !o.NoConsul {
		if err := c.startConsul(ctx); err != nil {
			return c, err
		}
	}
	if o.Storage == DynamoStorage {
		if err := c.startDynamo(ctx); err != nil {
			return c, err
		}
	}
	if !o.NoVault {
		return c, c.startVault(ctx)
	}
	return c, nil
}

// prepare makes all that is needed before the first process: folder, network, certificates.
func (c *Cluster) prepare() (err error) {
	if c.dir, err = os.MkdirTemp("", "cluster-"); err != nil {
		return fmt.Errorf("folder of the cluster: %w", err)
	}
	c.logDir = c.dir
	if c.options.LogDir != "" {
		if c.logDir, err = filepath.Abs(c.options.LogDir); err != nil {
			return fmt.Errorf("folder of the logs: %w", err)
		}
		if err := os.MkdirAll(c.logDir, 0o755); err != nil {
			return fmt.Errorf("folder of the logs: %w", err)
		}
	}
	if c.net, err = reserve(); err != nil {
		return err
	}
	if c.options.ACL {
		c.ManagementToken = uuid()
	}
	if c.options.ConsulTLS {
		if c.consulAuthority, err = newAuthority(c.dir, "consul-ca"); err != nil {
			return err
		}
		c.ConsulCA = c.consulAuthority.file
		if c.ConsulCert, c.ConsulKey, err = c.consulAuthority.issue("consul-client", "consul-client"); err != nil {
			return err
		}
	}
	// No idle connections: a server that was killed or paused must not be met again on an old one.
	transport := &http.Transport{DisableKeepAlives: true}
	c.client = &http.Client{
		Transport: transport,
		// Who asks one node wants that node's answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if c.options.TLS {
		if c.vaultAuthority, err = newAuthority(c.dir, "vault-ca"); err != nil {
			return err
		}
		c.VaultCA = c.vaultAuthority.file
		roots := x509.NewCertPool()
		roots.AddCert(c.vaultAuthority.Cert)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	return nil
}

// process is a process named name, not started, that Close ends. Its environment lacks what would change the settings
// of the servers or of their clients, and it has another home: a library in Vault makes a folder there.
func (c *Cluster) process(name, program string) *process.Process {
	p := &process.Process{
		Name: name, Label: name, LogFile: filepath.Join(c.logDir, name+".log"), Note: c.note,
		Path: program, Dir: c.dir,
		Env: process.Environ([]string{"HOME=" + c.dir}, "VAULT_", "BAO_", "CONSUL_", "HOME="),
	}
	c.procMu.Lock()
	defer c.procMu.Unlock()
	c.processes = append(c.processes, p)
	return p
}

// Close kills every server, paused ones too, waits for their end, removes the folder and gives the network back. It
// is safe to call more than once, at the same time, and on nil.
func (c *Cluster) Close() error {
	if c == nil {
		return nil
	}
	c.closeOnce.Do(func() {
		c.procMu.Lock()
		all := c.processes
		c.procMu.Unlock()
		errs := []error{wait.Each(all, (*process.Process).Close)}
		if c.net != nil {
			errs = append(errs, c.net.release())
		}
		if c.dir != "" {
			errs = append(errs, os.RemoveAll(c.dir))
		}
		c.closeErr = errors.Join(errs...)
	})
	return c.closeErr
}

// Dir is the cluster's folder: configurations, certificates, data. Close removes it.
func (c *Cluster) Dir() string { return c.dir }

// UnsealKey is the one key that unseals a node.
func (c *Cluster) UnsealKey() string { return c.unsealKey }

// IP is an address of the cluster's network, 127.x.y.host, for a client's source address or for a server of the
// caller's. The cluster itself uses those below FirstFreeHost and above LastFreeHost.
func (c *Cluster) IP(host int) string { return c.net.ip(host) }

// Cert makes a certificate for hosts, names or IP addresses, signed by the CA of Vault's certificates, for a server
// of the caller's. It needs Options.TLS.
func (c *Cluster) Cert(hosts ...string) (certFile, keyFile string, err error) {
	if c.vaultAuthority == nil || len(hosts) == 0 {
		return "", "", errors.New("make a certificate: the cluster was started without TLS, or no host was given")
	}
	return c.vaultAuthority.issue(hosts[0], hosts...)
}

// note writes a line to Options.Log.
func (c *Cluster) note(format string, args ...any) {
	if c.options.Log == nil {
		return
	}
	c.logMu.Lock()
	defer c.logMu.Unlock()
	fmt.Fprintf(c.options.Log, time.Now().Format("15:04:05.000 ")+format+"\n", args...)
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }
