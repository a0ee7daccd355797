"""Every message that crosses a socket or a pipe, declared once. No behaviour.

``state``      what operators ask for (public)
``agents``     what agents report about themselves (public)
``inference``  requests and answers of the native inference service (public)
``openai``     requests and answers of the OpenAI-compatible service (public)
``link``       agent and balancer, over the link's WebSocket (ours)
``worker``     agent and worker, over a socketpair (ours)
``fetch``      agent and a process that fetches a model, over pipes (ours)

Two conventions of the public wire recur. *Strict* objects refuse unknown keys. An
*externally tagged* enum is a bare string, or an object with exactly one key that
names the variant: declared here as a Struct whose fields are all optional, of which
exactly one is set.
"""
