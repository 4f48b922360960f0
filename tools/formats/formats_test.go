// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package formats checks the examples that are written for other programs, with those programs' own libraries. It is a module
// of its own, so that none of them gets into the plugin's go.mod.
package formats

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const (
	examples = "../../examples"
	ready    = "/vault-redirector-health/ready"
	live     = "/vault-redirector-health/live"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestKubernetes decodes each object by its type, without a field that the type does not have, and looks at what the rest
// depends on.
func TestKubernetes(t *testing.T) {
	var (
		config     core.ConfigMap
		deployment apps.Deployment
		service    core.Service
		budget     policy.PodDisruptionBudget
	)
	documents := bytes.Split(read(t, "kubernetes.yaml"), []byte("\n---\n"))
	for i, object := range []any{&config, &deployment, &service, &budget} {
		if i >= len(documents) {
			t.Fatalf("%d documents, want 4", len(documents))
		}
		if err := yaml.UnmarshalStrict(documents[i], object); err != nil {
			t.Fatalf("document %d: %v", i+1, err)
		}
	}
	kinds := []string{config.Kind, deployment.Kind, service.Kind, budget.Kind}
	if want := []string{"ConfigMap", "Deployment", "Service", "PodDisruptionBudget"}; !slices.Equal(kinds, want) || len(documents) != len(want) {
		t.Fatalf("%d documents, %q, want %q", len(documents), kinds, want)
	}
	pod := deployment.Spec.Template
	for key, value := range deployment.Spec.Selector.MatchLabels {
		if pod.Labels[key] != value || service.Spec.Selector[key] != value || budget.Spec.Selector.MatchLabels[key] != value {
			t.Errorf("the label %s is not the same for all", key)
		}
	}
	container := pod.Spec.Containers[0]
	if probe := container.ReadinessProbe.HTTPGet; probe.Path != ready || probe.Scheme != core.URISchemeHTTPS {
		t.Errorf("readiness asks %s %s", probe.Scheme, probe.Path)
	}
	if probe := container.LivenessProbe.HTTPGet; probe.Path != live || probe.Scheme != core.URISchemeHTTPS {
		t.Errorf("liveness asks %s %s", probe.Scheme, probe.Path)
	}
	ports := map[string]int32{}
	for _, port := range container.Ports {
		ports[port.Name] = port.ContainerPort
	}
	if target := service.Spec.Ports[0].TargetPort.StrVal; ports[target] != 8443 || container.ReadinessProbe.HTTPGet.Port.StrVal != target {
		t.Errorf("the service leads to port %q of %v", target, ports)
	}
	if s := container.SecurityContext; !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !*pod.Spec.SecurityContext.RunAsNonRoot {
		t.Error("it has rights that it does not need")
	}
	volumes := map[string]bool{}
	for _, volume := range pod.Spec.Volumes {
		volumes[volume.Name] = true
	}
	for _, mount := range container.VolumeMounts {
		if !volumes[mount.Name] {
			t.Errorf("there is no volume %s", mount.Name)
		}
	}
	if *pod.Spec.TerminationGracePeriodSeconds <= 15+60 {
		t.Errorf("terminationGracePeriodSeconds %d: no longer than draining", *pod.Spec.TerminationGracePeriodSeconds)
	}
}

// TestCompose loads the file as docker compose does: by the schema, and with all that refers to something else in it.
func TestCompose(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{filepath.Join(examples, "compose.yaml")}, cli.WithoutEnvironmentResolution, cli.WithProfiles(nil))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	vaults := 0
	for name, service := range project.Services {
		if service.Build != nil {
			file := service.Build.Dockerfile
			if !filepath.IsAbs(file) {
				file = filepath.Join(service.Build.Context, file)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		local := service.Environment["VAULT_LOCAL_CONFIG"]
		if local == nil {
			continue
		}
		vaults++
		var config map[string]any
		if err := yaml.UnmarshalStrict([]byte(*local), &config); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if config["api_addr"] != "http://"+name+":8200" || service.Hostname != name || !strings.Contains(*local, `"node_id": "`+name+`"`) {
			t.Errorf("%s: its names differ: %s", name, *local)
		}
	}
	if vaults != 3 || project.Services["consul"].Image == "" {
		t.Errorf("%d Vaults, want 3, and a Consul", vaults)
	}
	if content := project.Configs["caddyfile"].Content; !strings.Contains(content, "\tvault_redirect {") {
		t.Errorf("the Caddyfile is %q", content)
	}
}

// TestDockerfile parses the file as docker build does, and looks for what a production image has to have.
func TestDockerfile(t *testing.T) {
	parsed, err := parser.Parse(bytes.NewReader(read(t, "Dockerfile")))
	if err != nil {
		t.Fatal(err)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, _ []parser.Range) { t.Errorf("%s: %s", rule, message) }})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		t.Fatal(err)
	}
	var user, health string
	for _, command := range stages[len(stages)-1].Commands {
		switch command := command.(type) {
		case *instructions.UserCommand:
			user = command.User
		case *instructions.HealthCheckCommand:
			health = strings.Join(command.Health.Test, " ")
		case *instructions.CopyCommand:
			for _, source := range command.SourcePaths {
				if command.From == "" {
					if _, err := os.Stat(filepath.Join(examples, "..", source)); err != nil {
						t.Errorf("COPY: %v", err)
					}
				}
			}
		}
	}
	if len(stages) != 2 || user != "10001:10001" || !strings.Contains(health, "wget") {
		t.Errorf("%d stages, user %q, health check %q", len(stages), user, health)
	}
}
