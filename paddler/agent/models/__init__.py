"""Where weights come from: the Hugging Face Hub, an address, or this machine.

``references``  from what the desired state names to a path here; the way in
``local``       files that lie here already
``fetching``    the process that fetches one model, as the agent sees it

In that process, which may be killed at any moment and loses nothing:

``fetch``       its main function
``hub``         the Hub: which commit, which files, the cache shared with other tools
``url``         addresses
``url_cache``   where files from addresses are kept
``split``       models in several files
``transfer``    bytes from a server into a file, resumed and checked
``lock``        one process fetches, the others wait
``causes``      why it failed, and the issue that tells operators
"""
