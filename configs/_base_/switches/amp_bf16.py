# One more base of any config: its backbone computes in bfloat16.
custom_hooks = [dict(type='BackboneAutocastHook')]
