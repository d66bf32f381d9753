//go:build unix

package examples_test

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A deployment is what deploy/kubernetes.yaml may hold: of apps/v1, the members that it
// uses. Another one is a misspelling.
type deployment struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   metadata
	Spec       struct {
		Replicas int
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		Template struct {
			Metadata metadata
			Spec     pod
		}
	}
}

type metadata struct {
	Name                string
	Labels, Annotations map[string]string
}

type pod struct {
	AutomountServiceAccountToken bool `yaml:"automountServiceAccountToken"`
	SecurityContext              struct {
		RunAsNonRoot   bool              `yaml:"runAsNonRoot"`
		RunAsUser      int               `yaml:"runAsUser"`
		RunAsGroup     int               `yaml:"runAsGroup"`
		FSGroup        int               `yaml:"fsGroup"`
		SeccompProfile map[string]string `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	Containers []container
	Volumes    []struct {
		Name      string
		Projected struct {
			DefaultMode os.FileMode `yaml:"defaultMode"`
			Sources     []source
		}
	}
}

type container struct {
	Name, Image string
	Args        []string
	Env         []struct{ Name, Value string }
	Ports       []struct {
		Name string
		Port int `yaml:"containerPort"`
	}
	LivenessProbe struct {
		TCPSocket struct{ Port string } `yaml:"tcpSocket"`
	} `yaml:"livenessProbe"`
	ReadinessProbe struct {
		HTTPGet        struct{ Path, Port string } `yaml:"httpGet"`
		TimeoutSeconds int                         `yaml:"timeoutSeconds"`
	} `yaml:"readinessProbe"`
	Resources       struct{ Requests, Limits map[string]string }
	SecurityContext struct {
		AllowPrivilegeEscalation bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop []string }
	} `yaml:"securityContext"`
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

type source struct {
	Secret struct {
		Name  string
		Items []struct{ Key, Path string }
	}
	ServiceAccountToken struct {
		Audience          string
		ExpirationSeconds int `yaml:"expirationSeconds"`
		Path              string
	} `yaml:"serviceAccountToken"`
}

func manifest(t *testing.T, text string) deployment {
	t.Helper()
	var d deployment
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	return d
}

// The manifest's names agree with each other and with the image, and the program finds the
// token in the links that Kubernetes makes of a projected volume.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	d, i := manifest(t, read(t, "deploy/kubernetes.yaml")), dockerfile(t)
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]
	if d.APIVersion != "apps/v1" || d.Kind != "Deployment" || !strings.HasPrefix(i.user, "65532:") || pod.SecurityContext.RunAsUser != 65532 {
		t.Errorf("%+v", d)
	}
	for name, value := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Metadata.Labels[name] != value {
			t.Errorf("the pod's label %s is not %s", name, value)
		}
	}
	port := c.Ports[0].Name
	if c.LivenessProbe.TCPSocket.Port != port || c.ReadinessProbe.HTTPGet.Port != port || c.ReadinessProbe.HTTPGet.Path != "/healthz" ||
		!slices.Contains(i.entrypoint, ":2112") || c.Ports[0].Port != 2112 {
		t.Errorf("ports: %+v", c)
	}
	volume, mount := pod.Volumes[0], c.VolumeMounts[0]
	item := volume.Projected.Sources[0].Secret.Items[0]
	if mount.Name != volume.Name || c.Env[0].Name != "BEARER_TOKEN_FILE" || c.Env[0].Value != path.Join(mount.MountPath, item.Path) {
		t.Errorf("the token is at %+v of %+v, and looked for at %+v", item, mount, c.Env)
	}

	s := startServices(t)
	dir := write(t, map[string]string{"..2026_12_01_00_00_00.1/" + item.Path: s.token})
	for link, to := range map[string]string{"..data": "..2026_12_01_00_00_00.1", item.Path: "..data/" + item.Path} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, item.Path), volume.Projected.DefaultMode); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t, "follow"), s.arguments(t, append(i.entrypoint[1:], c.Args...))...)
	cmd.Env = s.environment(t, "BEARER_TOKEN_FILE="+filepath.Join(dir, item.Path))
	followed(t, s, start(t, cmd))
}

// What the manifest has in a comment can take the place of the secret.
func TestKubernetesServiceAccount(t *testing.T) {
	t.Parallel()
	text := read(t, "deploy/kubernetes.yaml")
	begin, end := strings.Index(text, "              - secret:\n"), strings.Index(text, "              # Where brokers")
	source := strings.Index(text, "              # - serviceAccountToken:\n")
	if begin < 0 || end < begin || source < end {
		t.Fatal("deploy/kubernetes.yaml has not the one, and the other in a comment")
	}
	text = text[:begin] + strings.ReplaceAll(text[source:], "              # ", "              ")
	pod := manifest(t, text).Spec.Template.Spec
	token, mount := pod.Volumes[0].Projected.Sources[0].ServiceAccountToken, pod.Containers[0].VolumeMounts[0]
	if token.Audience == "" || token.ExpirationSeconds < 600 || path.Join(mount.MountPath, token.Path) != pod.Containers[0].Env[0].Value {
		t.Errorf("%+v", token) // Kubernetes gives no token for less than ten minutes
	}
}
