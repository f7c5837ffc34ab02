# What tools/test_dev.py puts in place of a config's test. Paths are below the config's data_root.
ann_file = 'annotations/image_info_test-dev2017.json'
img = 'test2017/'
test_evaluator = dict(type='CocoSubmission')
