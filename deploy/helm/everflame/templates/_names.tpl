{{- /* The port of an URL; of a secret, AWS's own, which is open for where it says to send if that is https. */}}
{{- define "everflame.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- if $port }}{{ $port }}{{ else if ne $url.scheme "http" }}443{{ else }}80{{ end }}
{{- end }}
{{- /* Where profiles go as well, as the option --also has it. */}}
{{- define "everflame.also" -}}
{{- $urls := list -}}
{{- range $at, $to := .Values.agent.also -}}
{{- $needs := list -}}
{{- with $to.name }}{{ $needs = append $needs (printf "name=%s" .) }}{{ end -}}
{{- if $to.apiKeySecret }}{{ $needs = append $needs (printf "api-key-file=/etc/everflame/also-%d/apiKey" $at) }}{{ end -}}
{{- if $to.tokenSecret }}{{ $needs = append $needs (printf "token-file=/etc/everflame/also-%d/token" $at) }}{{ end -}}
{{- $mark := contains "?" $to.endpoint | ternary "&" "?" -}}
{{- $urls = append $urls (join $mark (compact (list $to.endpoint (join "&" $needs)))) -}}
{{- end -}}
{{- join "," $urls -}}
{{- end }}
