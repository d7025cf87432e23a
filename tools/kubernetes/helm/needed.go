//go:build needed

// Package needed keeps what the module is for among its requirements.
package needed

import _ "helm.sh/helm/v3/cmd/helm"
